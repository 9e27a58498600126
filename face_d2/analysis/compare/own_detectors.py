"""This project's detectors and any Detectron2 model, as :class:`Detector`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_d2.detectors.base import About, Detections, Detector, keep_best

__all__ = ["Detectron2Model", "FaceD2"]

_ABOUT = About(
    title="face-d2",
    source="arXiv 1811.08557 (DF2S2), arXiv 1904.10633 (LFFD)",
    license="Apache-2.0; of the weights as their model card says",
    protocol_source="the config, or the model card inside the file",
)


class FaceD2(Detector):
    """A detector of this project: an exported file, a config with weights, or a shipped name.

    Args:
        detector: a :class:`face_d2.FaceDetector`.
        file: the ONNX file or checkpoint.
    """

    adapter = "face-d2"
    about = _ABOUT

    def __init__(self, detector: Any, file: Path | None) -> None:
        self.detector = detector
        self.file = file

    @classmethod
    def from_onnx(cls, path: Path, threads: int = 0, score: float | None = None) -> FaceD2:
        """An exported file, run by ONNX Runtime."""
        from face_d2.predictor.api import FaceDetector

        detector = FaceDetector.from_onnx(
            path, runtime="onnxruntime", threads=threads or None, score_threshold=score
        )
        return cls(detector, path)

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """See :meth:`Detector.detect`."""
        found = self.detector.detect(image)
        return Detections(found.boxes, found.scores)

    @property
    def protocol(self) -> dict[str, str]:
        """See :attr:`Detector.protocol`."""
        card = self.detector.backend.spec
        rule, chosen = card.size_rule, card.suppression
        size = "original"
        if rule.min_size:
            size = f"shorter side {rule.min_size}, longer side at most {rule.max_size}"
        if rule.min_side:
            size += f", enlarged to a shorter side of {rule.min_side} if below"
        return {
            "file": f"{self.file.name}, sha256 {self._sha256[:12]}" if self.file else card.config,
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
        """See :attr:`Detector.fingerprint`."""
        protocol = {key: text for key, text in self.protocol.items() if key != "file"}
        card = self.detector.backend.spec
        return {
            **super().fingerprint,
            "protocol": protocol,
            "sha256": self._sha256,
            "detector": f"{card.detector} {card.config}",
        }

    @property
    def parameters(self) -> int | None:
        """See :attr:`Detector.parameters`."""
        model = getattr(self.detector.backend, "model", None)
        if model is not None:
            return sum(weight.numel() for weight in model.parameters())
        if self.file is None:
            return None
        from face_d2.detectors.onnx_graph import OnnxGraph

        return OnnxGraph(self.file, 1).parameters

    @property
    def file_bytes(self) -> int | None:
        """See :attr:`Detector.file_bytes`."""
        return self.file.stat().st_size if self.file else None

    @cached_property
    def _sha256(self) -> str:
        return hashlib.sha256(self.file.read_bytes()).hexdigest() if self.file else "unknown"


class Detectron2Model(Detector):
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
        """See :meth:`Detector.detect`."""
        found = self._predictor(image)["instances"]
        found = found[found.pred_classes == self.face_class]
        return keep_best(found.pred_boxes.tensor.numpy(), found.scores.numpy(), -1.0, 1.0)

    @property
    def protocol(self) -> dict[str, str]:
        """See :attr:`Detector.protocol`."""
        import torch

        from face_d2.evaluation.protocol import describe_test_settings

        return {
            "file": f"{self.file.name}, sha256 {self._sha256[:12]}",
            **describe_test_settings(self.cfg),
            "runtime": f"PyTorch {torch.__version__} on CPU",
        }

    @property
    def fingerprint(self) -> Mapping[str, object]:
        """See :attr:`Detector.fingerprint`."""
        digest = hashlib.sha256(self.cfg.dump().encode()).hexdigest()
        return {**super().fingerprint, "sha256": self._sha256, "config_sha256": digest}

    @property
    def parameters(self) -> int:
        """See :attr:`Detector.parameters`."""
        return sum(weight.numel() for weight in self._predictor.model.parameters())

    @property
    def file_bytes(self) -> int:
        """See :attr:`Detector.file_bytes`."""
        return self.file.stat().st_size

    @cached_property
    def _sha256(self) -> str:
        return hashlib.sha256(self.file.read_bytes()).hexdigest()
