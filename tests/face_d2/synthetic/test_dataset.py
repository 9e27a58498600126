"""The synthetic data set: files, determinism, truth of the annotations, difficulty, cache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import portalocker
import pytest

from face_d2.data.wider_face import WiderFaceImage, read_annotations
from face_d2.evaluation import widerface_ap
from face_d2.synthetic import dataset as synthetic
from face_d2.synthetic.dataset import generate, lookalike_images, synthetic_root
from face_d2.synthetic.scene import EVENTS, MAX_FACE, MIN_FACE, draw_scene

REPOSITORY = Path(__file__).resolve().parents[3]
TRAIN, VAL = 6, 60


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, shared by the tests that only read it."""
    root = tmp_path_factory.mktemp("synthetic")
    assert generate(root, seed=3, train_images=TRAIN, val_images=VAL) == root / "widerface"
    return root


def annotation_file(root: Path, split: str) -> Path:
    return root / "widerface" / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"


def read(root: Path, split: str) -> list[tuple[WiderFaceImage, np.ndarray]]:
    folder = root / "widerface" / f"WIDER_{split}" / "images"
    listed = read_annotations(annotation_file(root, split))
    return [(entry, cv2.imread(str(folder / entry.name))) for entry in listed]


def all_bytes(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_official_layout_is_read_by_the_reader(small_set: Path) -> None:
    for split, count in (("train", TRAIN), ("val", VAL)):
        entries = read(small_set, split)
        assert len(entries) == count
        on_disk = set((small_set / "widerface" / f"WIDER_{split}" / "images").rglob("*.jpg"))
        assert len(on_disk) == count
        for entry, image in entries:
            assert entry.name.split("/")[0] in EVENTS
            assert image is not None
            assert 320 <= max(image.shape[:2]) <= 640


def test_boxes_lie_in_the_image_and_within_the_sizes(small_set: Path) -> None:
    heights = []
    for entry, image in read(small_set, "val"):
        boxes = entry.boxes
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 0] + boxes[:, 2] <= image.shape[1]).all()
        assert (boxes[:, 1] + boxes[:, 3] <= image.shape[0]).all()
        longer = boxes[:, 2:].max(axis=1)
        assert (longer >= MIN_FACE).all()
        assert (longer <= MAX_FACE).all()
        heights.extend(boxes[:, 3])
        highest = entry.attributes.max(axis=0, initial=0)
        assert (highest <= (2, 1, 1, 1, 2, 1)).all()
    assert min(heights) < 12
    assert max(heights) > 120


def test_face_free_image_is_a_zero_and_one_dummy_row(tmp_path: Path) -> None:
    picture = draw_scene(np.random.default_rng(0), still_life=True)
    text = synthetic._annotation(f"{picture.event}/a.jpg", picture)
    assert text.splitlines()[1:] == ["0", "0 0 0 0 0 0 0 0 0 0 "]
    path = tmp_path / "wider_face_val_bbx_gt.txt"
    path.write_text(text)
    assert [len(entry.boxes) for entry in read_annotations(path)] == [0]


def test_bytes_do_not_depend_on_the_number_of_processes_or_pictures(tmp_path: Path) -> None:
    generate(tmp_path / "one", seed=5, train_images=4, val_images=3, num_workers=1)
    generate(tmp_path / "three", seed=5, train_images=4, val_images=3, num_workers=3)
    assert all_bytes(tmp_path / "one") == all_bytes(tmp_path / "three")
    generate(tmp_path / "more", seed=5, train_images=5, val_images=3, num_workers=2)
    one, more = all_bytes(tmp_path / "one"), all_bytes(tmp_path / "more")
    pictures = {name for name in one if name.endswith(".jpg")}
    assert all(more[name] == one[name] for name in pictures)


def test_seeds_and_splits_give_other_pictures(tmp_path: Path) -> None:
    for seed in (0, 1):
        generate(tmp_path / str(seed), seed=seed, train_images=2, val_images=2, num_workers=1)
    pictures = [
        data
        for seed in (0, 1)
        for name, data in all_bytes(tmp_path / str(seed)).items()
        if name.endswith(".jpg")
    ]
    assert len(pictures) == len(set(pictures)) == 8


def test_progress_goes_to_stderr_and_can_be_silenced(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    generate(tmp_path / "loud", train_images=1, val_images=1)
    assert "2/2" in capfd.readouterr().err
    generate(tmp_path / "silent", train_images=1, val_images=1, progress=False)
    assert capfd.readouterr() == ("", "")


def skin_masks(image: np.ndarray) -> list[np.ndarray]:
    """The usual color thresholds for skin, in YCrCb and in HSV, and both at once."""
    ycrcb = cv2.inRange(cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb), (0, 133, 77), (255, 173, 127))
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    reddish = cv2.inRange(hsv, (0, 40, 50), (20, 190, 255))
    reddish |= cv2.inRange(hsv, (172, 40, 50), (180, 190, 255))
    return [ycrcb, reddish, ycrcb & reddish]


@pytest.mark.parametrize("score", ["area", "fill", "shape"])
def test_a_color_threshold_finds_next_to_nothing(small_set: Path, score: str) -> None:
    """Connected skin-colored regions, cleaned, as boxes: AP_medium stays below 10 %."""
    for kind in range(3):
        detections = {}
        for entry, image in read(small_set, "val"):
            mask = cv2.morphologyEx(skin_masks(image)[kind], cv2.MORPH_OPEN, np.ones((5, 5)))
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
            x, y, width, height, area = stats[stats[:, 2:4].min(axis=1) >= 6][1:].T
            fill = area / (width * height)
            shape = fill * np.sqrt(area) * np.exp(-np.abs(np.log(height / width / 1.3)))
            scores = {"area": area, "fill": fill, "shape": shape}[score]
            detections[entry.name] = np.stack([x, y, width, height, scores], axis=1)
        result = widerface_ap(detections, annotation_file(small_set, "val"))
        assert result["AP_medium"] < 0.10


def test_lookalikes_are_repeatable_pictures_apart_from_the_set() -> None:
    images = lookalike_images(4, seed=2)
    assert [image.dtype for image in images] == [np.uint8] * 4
    assert all(image.ndim == 3 and image.shape[2] == 3 for image in images)
    for image, again in zip(images, lookalike_images(4, seed=2)):
        np.testing.assert_array_equal(image, again)
    still = draw_scene(np.random.default_rng([2, 0, 0]), still_life=True).image
    assert still.shape != images[0].shape or (still != images[0]).any()


@pytest.mark.parametrize("name", ["train_images", "val_images", "num_workers"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_sizes_must_be_whole_and_positive(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} is {value}.*at least 1"):
        generate(tmp_path / "set", **{name: value})
    assert not (tmp_path / "set").exists()


def test_other_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        generate(tmp_path, seed=-1)
    with pytest.raises(ValueError, match="seed is -1"):
        synthetic_root(-1)
    with pytest.raises(ValueError, match="n is 0"):
        lookalike_images(0)
    (tmp_path / "widerface").mkdir()
    with pytest.raises(FileExistsError, match="exists already; remove it"):
        generate(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot make the folder .*choose a folder"):
        generate(tmp_path / "file" / "set")


def test_a_failing_process_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "__name__", "face_d2.data.no_such_module")
    with pytest.raises(RuntimeError, match="no_such_module"):
        generate(tmp_path, train_images=1, val_images=1, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_cache_is_never_inside_the_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("FACE_D2_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="set FACE_D2_CACHE to another folder"):
        synthetic_root()
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_cache_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACE_D2_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot make the folder .*set FACE_D2_CACHE"):
        synthetic_root()


def test_a_cache_that_is_not_writable_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE_D2_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match=r"is not writable; set FACE_D2_CACHE"):
        synthetic_root()


def test_a_cache_that_is_in_use_for_too_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACE_D2_CACHE", str(tmp_path))
    monkeypatch.setattr(synthetic, "_LOCK_TIMEOUT_S", 0.1)
    name = f"synth-{synthetic.SYNTHETIC_VERSION}-3"
    message = rf"{name}\.lock has been locked for .*end that"
    with synthetic._locked(tmp_path / f"{name}.lock"), pytest.raises(TimeoutError, match=message):
        synthetic_root(3)
    assert f"waiting for another process that draws {name}" in capsys.readouterr().err


def test_a_file_system_without_locks_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(lock: portalocker.Lock) -> None:
        raise portalocker.exceptions.LockException("no locks available")

    monkeypatch.setenv("FACE_D2_CACHE", str(tmp_path))
    monkeypatch.setattr(portalocker.Lock, "acquire", acquire)
    with pytest.raises(OSError, match=r"\.lock cannot be locked \(no locks .* set FACE_D2_CACHE"):
        synthetic_root()


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        OSError, match=r"cannot write the picture .*_val_0_0\.jpg; is the disk full"
    ):
        synthetic._draw_one(tmp_path / "gone", 0, "val", 0)


_USER_SCRIPT = """
import sys
from face_d2.synthetic import dataset as synthetic
synthetic.TRAIN_IMAGES, synthetic.VAL_IMAGES = int(sys.argv[1]), 2
print(synthetic.synthetic_root(seed=4))
"""
"""A script without a __main__ guard, as users write them."""


def start_user(cache: Path, train_images: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _USER_SCRIPT, str(train_images)],
        env={**os.environ, "FACE_D2_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY)},
        cwd=cache,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once_generate_once(tmp_path: Path) -> None:
    users = [start_user(tmp_path, 12) for _ in range(2)]
    outputs = [user.communicate(timeout=300) for user in users]
    assert [user.returncode for user in users] == [0, 0], outputs
    root = tmp_path / f"synth-{synthetic.SYNTHETIC_VERSION}-4"
    assert [out.strip() for out, _ in outputs] == [str(root)] * 2
    assert sum("drawing synthetic faces" in err for _, err in outputs) == 1
    assert len(read_annotations(annotation_file(root, "train"))) == 12


def test_a_killed_generation_leaves_nothing_half_made(tmp_path: Path) -> None:
    killed = start_user(tmp_path, 500)
    root = tmp_path / f"synth-{synthetic.SYNTHETIC_VERSION}-4"
    deadline = time.monotonic() + 300
    while not list(root.glob(".widerface-partial-*/WIDER_train/images/*/*.jpg")):
        assert time.monotonic() < deadline, "generation never started"
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (root / "widerface").exists()
    user = start_user(tmp_path, 3)
    _, errors = user.communicate(timeout=300)
    assert user.returncode == 0, errors
    assert [path.name for path in root.iterdir()] == ["widerface"]
    assert len(read_annotations(annotation_file(root, "train"))) == 3


def test_a_finished_set_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE_D2_CACHE", str(tmp_path))
    monkeypatch.setattr(synthetic, "TRAIN_IMAGES", 1)
    monkeypatch.setattr(synthetic, "VAL_IMAGES", 1)
    root = synthetic_root(seed=9)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert synthetic_root(seed=9) == root == tmp_path / f"synth-{synthetic.SYNTHETIC_VERSION}-9"
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert synthetic_root(seed=10) != root


def test_default_cache_is_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACE_D2_CACHE", raising=False)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = f"output/cache/synth-{synthetic.SYNTHETIC_VERSION}-0"
    (tmp_path / folder / "widerface").mkdir(parents=True)
    assert synthetic_root() == tmp_path / folder


def test_imports_neither_torch_nor_detectron2() -> None:
    code = (
        "import sys, face_d2.synthetic.dataset\n"
        "assert not {'torch', 'detectron2'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
