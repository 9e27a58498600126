"""What comes out of a training: scores, the better weights, ONNX files and the page."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from face_d2.analysis.compare.comparison import CompareSettings, compare
from face_d2.analysis.compare.data import ImageSet, read_image_set
from face_d2.analysis.compare.measures import MeasureSettings, measure
from face_d2.analysis.compare.opening import DetectorChoice
from face_d2.analysis.compare.page import write_results
from face_d2.analysis.compare.run import run_detector
from face_d2.config import with_overrides
from face_d2.detectors import Detections
from face_d2.export.onnx_file import export_onnx
from face_d2.export.quantize import Quantization, quantize
from face_d2.predictor.torch_backend import build_detector, configured_size_rule
from face_d2.pretrained import PRETRAINED

__all__ = ["INT8_LOSS", "Validation", "export", "keep", "page", "write_int8_file"]

#: An int8 file that loses more points is not written.
INT8_LOSS = 5.0
_PICTURES = 16
_FIRST = 4  # pictures by which the time of an evaluation is told first


def export(cfg: CfgNode, weights: str, path: Path, name: str) -> None:
    """Writes the detector of some weights as an ONNX file, checked against PyTorch.

    Raises:
        FileNotFoundError, RuntimeError, ValueError: see :func:`export_onnx` and
            :func:`build_detector`.
    """
    cfg = with_overrides(cfg, ["MODEL.DEVICE", "cpu"])
    file = PRETRAINED[weights].weights if weights in PRETRAINED else Path(weights)
    export_onnx(
        build_detector(cfg, weights),
        path,
        size_rule=configured_size_rule(cfg),
        config=name,
        weights=file,
    )


class Validation:
    """Scores ONNX files on the validation pictures; detections are kept for the page.

    Args:
        data: the data set's notation.
        folder: folder of the detections.
        recall: the recall for which a threshold is sought.
    """

    def __init__(self, data: str, folder: Path, recall: float) -> None:
        self.images: ImageSet = read_image_set(data)
        self.all_images = len(self.images.files)
        self.seconds = 0.0  # of one picture, in the slowest pass
        self._folder = folder
        self._recall = recall

    def first_pass(self, name: str, model: Path, seconds: float | None) -> float:
        """:meth:`average_precision` on as many pictures as the time allows (None: on all).

        Later passes use the same pictures.
        """
        if seconds is not None:
            self._choose_pictures(name, model, seconds)
        return self.average_precision(name, model)

    def _choose_pictures(self, name: str, model: Path, seconds: float) -> None:
        every = self.images
        names = sorted(every.files, key=lambda n: hashlib.sha1(n.encode()).hexdigest())
        count, start, known = min(_FIRST, len(names)), time.monotonic(), self.seconds
        while True:
            chosen = set(names[:count])
            self.images = every.subset((n for n in every.files if n in chosen), f"{count} of them")
            self._search(name, model)
            passed = time.monotonic() - start
            self.seconds = max(known, passed / count)  # a resumed run has searched some before
            room = int((seconds - passed) / self.seconds)
            if count == len(names) or room < _FIRST:
                break
            count = min(len(names), count + max(_FIRST, min(room // 2, count)))
        if count == len(names):
            self.images = every

    def average_precision(self, name: str, model: Path) -> float:
        """AP of the faces above 10 pixels (Hard), in percent; 0 if it is not defined."""
        start = time.monotonic()
        found = self._search(name, model)
        self.seconds = max(self.seconds, (time.monotonic() - start) / len(found))
        metrics = measure(found, self.images.ground_truth, MeasureSettings(bootstrap=0)).metrics
        value = float(metrics["AP_hard"])
        return value if value == value else 0.0

    def _search(self, name: str, model: Path) -> dict[str, Detections]:
        choice, threads = _choice(name, model), torch.get_num_threads()
        return run_detector(choice, self.images, self._folder, threads=threads)

    def compare(self, models: dict[str, Path], output: Path) -> dict[str, Any]:
        """All figures of several files, see :func:`compare`."""
        settings = CompareSettings(
            measures=MeasureSettings(recall=self._recall),
            threads=torch.get_num_threads(),
            timing_images=0,
            pictures=_PICTURES,
        )
        choices = [_choice(name, model) for name, model in models.items()]
        return compare(choices, [self.images], output, settings, cache=self._folder)


@dataclass(frozen=True)
class Kept:
    """Which weights are the result.

    Attributes:
        trained: whether they are those at the end of the training.
        sentence: why.
    """

    trained: bool
    sentence: str


def keep(start: float, end: float, images: int) -> Kept:
    """The better of start and end by AP (Hard), in percent; the start if both are equal."""
    figures = f"AP {end:.2f} after the training, {start:.2f} before it, on {images} pictures"
    if end > start:
        return Kept(True, f"The trained weights are kept: {figures}.")
    return Kept(False, f"The start is kept, because the training did not help: {figures}.")


def write_int8_file(model: Path, path: Path, train: str, count: int) -> Quantization:
    """Writes an int8 file with value ranges from ``count`` pictures of the data set ``train``.

    Raises:
        RuntimeError, ValueError: see :func:`face_d2.export.quantize.quantize`.
    """
    pictures = _calibration(train, count)
    return quantize(model, path, pictures, max_loss=INT8_LOSS, runtimes=["onnxruntime"])


def page(results: dict[str, Any], training: dict[str, Any], folder: Path) -> Path:
    """Writes the comparison's page with a section about the training; returns the page."""
    return write_results({**results, "published": [], "training": training}, folder)


def _calibration(train: str, count: int) -> list[str]:
    """Evenly chosen pictures with faces, each of its own name."""
    by_name = {}
    for record in DatasetCatalog.get(train):
        if record["annotations"] and record["height"] > 0:
            file = Path(record["file_name"])
            by_name[file.parent.name, file.stem] = record["file_name"]
    files = list(by_name.values())
    step = max(1, len(files) // count)
    return files[::step][:count]


def _choice(name: str, model: Path) -> DetectorChoice:
    return DetectorChoice(name, "face-d2", str(model), {})
