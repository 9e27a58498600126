"""This project's detectors and any Detectron2 model, as :class:`Detector`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_d2.detectors.base import About, Detections, Detector, keep_best

__all__ = ["Detectron2Model", "FaceD2"]


class _WithFile(Detector):
    """A detector with a file."""

    file: Path

    @property
    def file_bytes(self) -> int:
        return self.file.stat().st_size

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def _file_in_words(self) -> str:
        return f"{self.file.name}, sha256 {self.sha256[:12]}"


class FaceD2(_WithFile):
    """A detector of this project in an exported file, run by ONNX Runtime.

    Args:
        path: the ONNX file.
        threads: number of CPU threads; 0 uses the default of the runtime.
        score: score threshold; None uses the threshold in the file.
    """

    adapter = "face-d2"
    about = About(
        title="face-d2",
        source="arXiv 1811.08557 (DF2S2), arXiv 1904.10633 (LFFD)",
        license="Apache-2.0; of the weights as their model card says",
        protocol_source="the config, or the model card inside the file",
    )

    def __init__(self, path: Path, threads: int = 0, score: float | None = None) -> None:
        from face_d2.predictor.api import FaceDetector

        self.file = path
        self.detector = FaceDetector.from_onnx(
            path, runtime="onnxruntime", threads=threads or None, score_threshold=score
        )

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        found = self.detector.detect(image)
        return Detections(found.boxes, found.scores)

    @property
    def protocol(self) -> dict[str, str]:
        card = self.detector.backend.spec
        rule, chosen = card.size_rule, card.suppression
        size = "original"
        if rule.min_size:
            size = f"shorter side {rule.min_size}, longer side at most {rule.max_size}"
        if rule.min_side:
            size += f", enlarged to a shorter side of {rule.min_side} if below"
        return {
            "file": self._file_in_words(),
            "image size": size,
            "input": f"{card.input_format}, 0-255",
            "score threshold": f"> {chosen.score_threshold:g}",
            "NMS": f"{chosen.nms_type} {chosen.nms_threshold:g}",
            "detections kept": f"{chosen.max_detections} per image (top {chosen.topk} before NMS)",
            "test-time augmentation": "none",
            "runtime": self.detector.runtime,
        }

    @property
    def fingerprint(self) -> Mapping[str, object]:
        card = self.detector.backend.spec
        return {**super().fingerprint, "detector": f"{card.detector} {card.config}"}

    @property
    def parameters(self) -> int | None:
        from face_d2.detectors.onnx_graph import OnnxGraph

        return OnnxGraph(self.file, 1).parameters


class Detectron2Model(_WithFile):
    """Any Detectron2 config with its weights; its test settings are those of the config.

    Args:
        config_file: a path, or the name of a shipped config.
        weights: the checkpoint.
        face_class: index of the model's class for faces.
    """

    adapter = "config"
    about = About(
        title="Detectron2 model",
        source="https://github.com/facebookresearch/detectron2",
        license="as the config's author says",
        protocol_source="the config",
    )

    def __init__(self, config_file: str, weights: Path, face_class: int = 0) -> None:
        import face_d2.register  # isort: skip  (patches Detectron2 before its first import)

        from detectron2.engine import DefaultPredictor

        from face_d2.config import load_config

        if not weights.is_file():
            raise FileNotFoundError(f"{weights}: no such checkpoint")
        self.file = weights
        self.face_class = face_class
        self.cfg = load_config(config_file)
        self.cfg.MODEL.WEIGHTS = str(weights)
        self.cfg.MODEL.DEVICE = "cpu"
        self._predictor = DefaultPredictor(self.cfg)

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        found = self._predictor(image)["instances"]
        found = found[found.pred_classes == self.face_class]
        return keep_best(found.pred_boxes.tensor.numpy(), found.scores.numpy(), -1.0, 1.0)

    @property
    def protocol(self) -> dict[str, str]:
        import torch

        from face_d2.evaluation.protocol import describe_test_settings

        return {
            "file": self._file_in_words(),
            **describe_test_settings(self.cfg),
            "runtime": f"PyTorch {torch.__version__} on CPU",
        }

    @property
    def fingerprint(self) -> Mapping[str, object]:
        cfg = self.cfg.clone()
        cfg.MODEL.WEIGHTS = ""  # they count by their content
        digest = hashlib.sha256(cfg.dump().encode()).hexdigest()
        return {**super().fingerprint, "config_sha256": digest}

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self._predictor.model.parameters())
