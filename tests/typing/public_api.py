"""A program that uses the public API; ``mypy --strict`` must accept it (test_public_api.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import face_d2
from face_d2 import FaceDetector
from face_d2.detectors import Detections, open_onnx
from face_d2.evaluation import (
    fddb_roc,
    read_ground_truth,
    read_predictions,
    widerface_ap,
    write_archive,
    write_predictions,
)
from face_d2.pretrained import PRETRAINED, find_pretrained


def find_faces(photo: Path) -> NDArray[np.float32]:
    """Boxes (N, 4) of the faces of one photograph."""
    detector = FaceDetector.from_pretrained("lffd-20l5s", score_threshold=0.3, threads=1)
    result = detector.detect(photo)
    several = detector.detect([photo, np.zeros((64, 64, 3), np.uint8)])
    for one in detector.stream([photo]):
        if one.error is not None:
            print(one.source, one.error)
    names: tuple[str, ...] = detector.levels
    print(len(several), names, detector.runtime, result.scores.max(initial=0.0))
    return result.boxes


def open_detectors(config: Path, weights: Path, file: Path) -> list[FaceDetector]:
    """Detectors of a checkpoint and of a file."""
    return [
        FaceDetector(),
        FaceDetector.from_config(config, weights, device="cpu", overrides=["MODEL.DEVICE", "cpu"]),
        FaceDetector.from_onnx(file, runtime="onnxruntime", max_pixels=2**22),
    ]


def find_with_another(file: Path, image: NDArray[np.uint8]) -> Detections:
    """Faces by another project's detector."""
    return open_onnx(file, threads=1).detect(image)


def score(predictions: Path, ground_truth: Path, folds: Path) -> dict[str, float]:
    """AP on WIDER FACE, and FDDB's true positive rate at 1,000 false positives."""
    truth = read_ground_truth(ground_truth)
    rows = read_predictions(predictions)
    result = widerface_ap(rows, truth, bootstrap=100)
    print(result.intervals, result.by_height("hard"))
    figures = {name: float(result[name]) for name in result}
    figures["FDDB"] = fddb_roc(predictions, folds).discrete_at(1000)
    write_archive(write_predictions(rows, "again"), "again.zip")
    return figures


def main() -> None:
    """Uses the functions that need no file."""
    cfg = face_d2.get_cfg()
    cfg.merge_from_file(face_d2.get_config_file("lffd/lffd_20L5S.yaml"))
    for name, model in PRETRAINED.items():
        assert find_pretrained(name) is model
    print(face_d2.__version__, cfg.MODEL.META_ARCHITECTURE)


if __name__ == "__main__":
    main()
