"""A generated face data set in the layout and text of WIDER FACE.

It lets everything that reads, trains on and evaluates WIDER FACE run without the real pictures::

    root = synthetic_root()          # generated on first use, about a minute on two cores
    root/widerface/WIDER_train/images/<event>/<name>.jpg
    root/widerface/WIDER_val/images/<event>/<name>.jpg
    root/widerface/wider_face_split/wider_face_{train,val}_bbx_gt.txt

Pictures have drawn people from 8 to 300 pixels of face height before cluttered backgrounds, and
look-alikes that are not faces (:mod:`face_d2.synthetic.scene`). Picture i of a split depends
on (seed, split, i) alone, so the files are the same however many processes drew them. No torch,
no detectron2.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import portalocker
from numpy.typing import NDArray
from tqdm import tqdm

from face_d2.synthetic.scene import EVENTS, Picture, draw_scene
from face_d2.utils.files import cache_dir

__all__ = [
    "SYNTHETIC_VERSION",
    "generate",
    "lookalike_images",
    "synthetic_path",
    "synthetic_root",
]

SYNTHETIC_VERSION = 3
"""Part of the cache folder's name; goes up whenever the same seed draws other pictures."""
TRAIN_IMAGES, VAL_IMAGES = 2000, 150
_SPLITS = ("train", "val")
# One training picture in so many has look-alikes and no face, beyond those that chance draws so:
# what is no face takes more examples to learn than what is one.
_STILL_LIFE_EVERY = 6
_LOOKALIKE_STREAM = len(_SPLITS)
_LOCK_TIMEOUT_S = 1800.0


def synthetic_path(seed: int = 0) -> Path:
    """The absolute folder of the set, which :func:`synthetic_root` generates if it is missing.

    Raises:
        ValueError: when the seed is negative.
    """
    _check_seed(seed)
    return cache_dir().absolute() / f"synth-{SYNTHETIC_VERSION}-{seed}"


def synthetic_root(seed: int = 0) -> Path:
    """The folder that holds the synthetic ``widerface`` folder, generated on first use.

    It is ``synth-<version>-<seed>`` in ``$FACE_D2_CACHE`` (default ``output/cache`` of the working
    directory). Whoever comes while it is being generated waits; a generation that was killed
    leaves nothing that a later call would take for a data set.

    Args:
        seed: chooses the pictures, not negative.

    Returns:
        The absolute folder; ``DETECTRON2_DATASETS`` may be set to it.

    Raises:
        ValueError: when the seed is negative, or the cache would lie in ``$DETECTRON2_DATASETS``.
        OSError: when the cache folder cannot be written.
        TimeoutError: when another process has been generating for half an hour.
    """
    root = synthetic_path(seed)
    datasets = Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser().absolute()
    if root.resolve().is_relative_to(datasets.resolve()):
        raise ValueError(
            f"the cache folder {root.parent} lies inside the data sets' folder {datasets}, where "
            "generated pictures do not go; set FACE_D2_CACHE to another folder."
        )
    if (root / "widerface").is_dir():
        return root
    _make_folder(root, "set FACE_D2_CACHE to a folder that can be written")
    with _locked(root.with_name(root.name + ".lock")):
        if not (root / "widerface").is_dir():
            for leftover in root.glob(_PARTIAL + "*"):
                shutil.rmtree(leftover, ignore_errors=True)
            generate(root, seed=seed, train_images=TRAIN_IMAGES, val_images=VAL_IMAGES)
    return root


def generate(
    root: str | Path,
    *,
    seed: int = 0,
    train_images: int = TRAIN_IMAGES,
    val_images: int = VAL_IMAGES,
    num_workers: int = 2,
    progress: bool = True,
) -> Path:
    """Generates a data set; ``<root>/widerface`` appears complete or not at all.

    Args:
        root: folder to hold ``widerface``; made if absent.
        seed: chooses the pictures, not negative.
        train_images: number of pictures to train on.
        val_images: number of pictures to evaluate on.
        num_workers: processes that draw; 1 draws in this process.
        progress: whether to show a bar with the time left on stderr.

    Returns:
        ``<root>/widerface``.

    Raises:
        ValueError: when a number is out of range.
        FileExistsError: when there is a ``widerface`` in ``root`` already.
        OSError: when ``root`` cannot be written.
        RuntimeError: when a drawing process failed.
    """
    _check_seed(seed)
    for name, value in (
        ("train_images", train_images),
        ("val_images", val_images),
        ("num_workers", num_workers),
    ):
        if int(value) != value or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1.")
    root = Path(root).absolute()
    final = root / "widerface"
    if final.exists():
        raise FileExistsError(f"{final} exists already; remove it or choose another folder.")
    _make_folder(root, "choose a folder that can be written")
    sizes = {"train": train_images, "val": val_images}
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=root))
    try:
        (partial / "wider_face_split").mkdir()
        folders = [partial / f"WIDER_{split}" / "images" / e for split in _SPLITS for e in EVENTS]
        for folder in folders:
            folder.mkdir(parents=True)
        with tqdm(
            total=sum(sizes.values()),
            desc="drawing synthetic faces",
            unit="image",
            disable=not progress,
            # A log file gets a line now and then, a terminal a moving bar.
            mininterval=0.3 if sys.stderr.isatty() else 10.0,
        ) as bar:
            entries = {}
            for split, index, entry in _draw_all(partial, seed, sizes, num_workers):
                entries[split, index] = entry
                bar.update()
        for split in _SPLITS:
            text = "".join(entries[split, index] for index in range(sizes[split]))
            (partial / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text(text)
        for folder in folders:
            if not any(folder.iterdir()):
                folder.rmdir()
        about = {"version": SYNTHETIC_VERSION, "seed": seed, **sizes}
        (partial / "synthetic.json").write_text(json.dumps(about) + "\n")
        partial.chmod(0o755)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def lookalike_images(n: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Pictures of look-alikes without any face: whatever is detected on them is false.

    Args:
        n: how many.
        seed: chooses the pictures; they are not those of the data set with this seed.

    Returns:
        BGR images (H, W, 3).

    Raises:
        ValueError: when ``n`` or ``seed`` is out of range.
    """
    _check_seed(seed)
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1 picture.")
    images = []
    for index in range(n):
        rng = np.random.default_rng([seed, _LOOKALIKE_STREAM, index])
        images.append(draw_scene(rng, still_life=True).image)
    return images


_PARTIAL = ".widerface-partial-"


def _check_seed(seed: int) -> None:
    if int(seed) != seed or seed < 0:
        raise ValueError(f"seed is {seed!r}; expected a whole number that is not negative.")


def _make_folder(folder: Path, advice: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise OSError(f"cannot make the folder {folder} ({error.strerror}); {advice}.") from error
    if not writable:
        raise PermissionError(f"the folder {folder} is not writable; {advice}.")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock file. The system frees it when its holder ends, however that happens."""
    lock = portalocker.Lock(path, mode="a", timeout=0, fail_when_locked=True)
    try:
        lock.acquire()
    except portalocker.exceptions.AlreadyLocked:
        print(f"waiting for another process that draws {path.stem} ...", file=sys.stderr)
        lock = portalocker.Lock(path, mode="a", timeout=_LOCK_TIMEOUT_S, check_interval=0.5)
        try:
            lock.acquire()
        except portalocker.exceptions.LockException as error:
            raise TimeoutError(
                f"{path} has been locked for {_LOCK_TIMEOUT_S / 60:.0f} minutes by another process "
                "that draws the synthetic data set; end that process and try again."
            ) from error
    except portalocker.exceptions.LockException as error:
        raise OSError(
            f"{path} cannot be locked ({error}); set FACE_D2_CACHE to a folder of a file system "
            "with file locks."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _jobs(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return [(split, index) for split in _SPLITS for index in range(sizes[split])]


def _draw_all(
    folder: Path, seed: int, sizes: dict[str, int], num_workers: int
) -> Iterator[tuple[str, int, str]]:
    """Draws and stores all pictures; yields split, index and annotation text of each."""
    if num_workers == 1:
        yield from (_draw_one(folder, seed, split, index) for split, index in _jobs(sizes))
        return
    # Plain child processes rather than multiprocessing: forking is unsafe once torch runs threads,
    # and spawning would run the caller's main script again if it lacks a __main__ guard.
    done: queue.Queue[tuple[str, int, str] | None] = queue.Queue()
    with tempfile.TemporaryFile("w+") as errors:
        tasks = [
            {"folder": str(folder), "seed": seed, "sizes": sizes, "part": part, "of": num_workers}
            for part in range(num_workers)
        ]
        workers = [_start_worker(task, errors) for task in tasks]
        threads = [threading.Thread(target=_forward, args=(w, done)) for w in workers]
        try:
            for thread in threads:
                thread.start()
            for _ in workers:
                while (item := done.get()) is not None:
                    yield item
            if any(worker.wait() for worker in workers):
                errors.seek(0)
                raise RuntimeError(f"a process that draws pictures failed:\n{errors.read()}")
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
            for thread in threads:
                thread.join()


def _start_worker(task: dict[str, Any], errors: IO[str]) -> subprocess.Popen[str]:
    """Starts a child process on its part of the pictures."""
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    return subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import _work; _work()", json.dumps(task)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )


def _forward(worker: subprocess.Popen[str], done: queue.Queue[tuple[str, int, str] | None]) -> None:
    """Puts what a child process reports into the queue, and None at its end."""
    assert worker.stdout is not None
    with worker.stdout as lines:
        for line in lines:
            done.put(tuple(json.loads(line)))
    done.put(None)


def _work() -> None:
    """Body of a child process. Once its parent is gone, its next report ends it."""
    cv2.setNumThreads(1)
    task = json.loads(sys.argv[1])
    for split, index in _jobs(task["sizes"])[task["part"] :: task["of"]]:
        print(json.dumps(_draw_one(Path(task["folder"]), task["seed"], split, index)), flush=True)


def _draw_one(folder: Path, seed: int, split: str, index: int) -> tuple[str, int, str]:
    """Draws one picture, stores it, returns split, index and annotation text."""
    still_life = split == "train" and index % _STILL_LIFE_EVERY == _STILL_LIFE_EVERY - 1
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    picture = draw_scene(rng, still_life=still_life)
    number, title = picture.event.split("--")
    name = f"{picture.event}/{number}_{title}_{split}_{seed}_{index}.jpg"
    path = folder / f"WIDER_{split}" / "images" / name
    quality = [cv2.IMWRITE_JPEG_QUALITY, picture.jpeg_quality]
    if not cv2.imwrite(str(path), picture.image, quality):
        raise OSError(f"cannot write the picture {path}; is the disk full?")
    return split, index, _annotation(name, picture)


def _annotation(name: str, picture: Picture) -> str:
    """The lines of an image in WIDER FACE's text; no face is "0" and one row of zeros."""
    rows = np.concatenate([picture.boxes, picture.attributes], axis=1)
    if len(rows) == 0:
        return f"{name}\n0\n" + "0 " * 10 + "\n"
    lines = "".join(" ".join(map(str, row)) + " \n" for row in rows.tolist())
    return f"{name}\n{len(rows)}\n{lines}"
