"""Runs a detector on images and stores the detections, so that they are computed only once.

A run is a file with one line per image. Its name is a hash of everything on which the boxes depend:
the detector's file, the adapter version and the settings. Lines are added while images are
processed, so a stopped run continues where it stopped. An image whose file has changed is processed
again.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from face_d2.analysis.compare.data import ImageSet
from face_d2.analysis.compare.opening import DetectorChoice, open_detector
from face_d2.analysis.compare.recorded import RecordedDetections
from face_d2.data.image_file import UnreadableImageError, read_image
from face_d2.detectors import Detections, Detector

__all__ = ["Run", "run_detector"]

#: Version of the lines.
_FORMAT = 1
_Line = dict[str, Any]
#: The detector of a worker process.
_worker: Detector | None = None


class Run:
    """The lines of one detector, in the folder of all runs; see :attr:`Detector.fingerprint`."""

    def __init__(self, folder: str | Path, fingerprint: Mapping[str, Any]) -> None:
        text = json.dumps({"format": _FORMAT, **fingerprint}, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path = Path(folder) / f"{self.key}.jsonl"
        self._lines: dict[str, _Line] = {}
        if self.path.is_file():
            self._read()
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            (self.path.parent / f"{self.key}.json").write_text(text + "\n", encoding="utf-8")

    def missing(self, files: Mapping[str, Path]) -> list[str]:
        """The images that have no line, or whose file has changed."""
        return [
            name
            for name, file in files.items()
            if name not in self._lines or self._lines[name]["stamp"] != _stamp(file)
        ]

    def add(self, lines: Iterable[_Line]) -> None:
        """Appends lines as they arrive."""
        with self.path.open("a", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line) + "\n")
                file.flush()
                self._lines[line["image"]] = line

    def detections(self, names: Sequence[str]) -> dict[str, Detections]:
        """The detections in these images."""
        found = {}
        for name in names:
            boxes = np.array(self._lines[name]["boxes"], np.float32).reshape(-1, 4)
            found[name] = Detections(boxes, np.array(self._lines[name]["scores"], np.float32))
        return found

    def _read(self) -> None:
        whole = self.path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]  # a killed run may leave an incomplete line
        if len(kept) < len(whole):
            with self.path.open("r+b") as file:
                file.truncate(len(kept))
        for text in kept.splitlines():
            try:
                line = json.loads(text)
                self._lines[line["image"]] = line
            except (ValueError, KeyError, TypeError):
                continue  # a damaged line: its image is processed again


def run_detector(
    spec: DetectorChoice,
    images: ImageSet,
    cache: str | Path,
    *,
    processes: int = 1,
    threads: int = 1,
    progress: bool = True,
) -> dict[str, Detections]:
    """The boxes of a detector on all images, from the folder ``cache`` if they are in it.

    Each process uses ``threads`` threads; this number can change the last digits of the boxes.

    Raises:
        ValueError: an image is not in recorded detections, or the detector fails.
    """
    detector = open_detector(spec, threads)
    if isinstance(detector, RecordedDetections):
        return {name: detector.of_image(name) for name in images.files}
    run = Run(cache, detector.fingerprint)
    jobs = [(name, images.files[name]) for name in run.missing(images.files)]
    bar = partial(
        tqdm,
        total=len(images.files),
        initial=len(images.files) - len(jobs),
        desc=spec.name,
        unit="image",
        disable=not progress,
    )
    if processes == 1 or len(jobs) < 2:
        run.add(bar(_search(detector, *job) for job in jobs))
    else:
        chunk = max(1, min(8, math.ceil(len(jobs) / processes / 4)))
        with ProcessPoolExecutor(
            processes,
            multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(spec, threads),
        ) as pool:
            run.add(bar(pool.map(_search_in_worker, jobs, chunksize=chunk)))
    return run.detections(list(images.files))


def _start_worker(spec: DetectorChoice, threads: int) -> None:
    global _worker
    opened = open_detector(spec, threads)
    assert isinstance(opened, Detector)
    _worker = opened


def _search_in_worker(job: tuple[str, Path]) -> _Line:
    assert _worker is not None  # the pool's initializer has run
    return _search(_worker, *job)


def _search(detector: Detector, name: str, file: Path) -> _Line:
    try:
        image = read_image(file)
    except UnreadableImageError as error:
        raise ValueError(
            f"{error}; repair the file, or leave it out of the labels or of the list of --images "
            "(face-d2-check-dataset finds all such files)"
        ) from error
    boxes, scores = detector.detect(image)
    return {
        "image": name,
        "stamp": _stamp(file),
        "boxes": [[round(value, 2) for value in box] for box in boxes.tolist()],
        "scores": [round(score, 6) for score in scores.tolist()],
    }


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
