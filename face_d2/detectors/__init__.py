"""Adapters that give face detectors of other projects one interface.

``open_onnx(FILE)`` recognizes a file and opens it. Each adapter uses the settings with which the
authors evaluate the detector. ONNX files need NumPy, OpenCV and ONNX Runtime only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from face_d2.detectors.base import About as About
    from face_d2.detectors.base import Detections as Detections
    from face_d2.detectors.base import Detector as Detector
    from face_d2.detectors.onnx_detector import OnnxDetector as OnnxDetector
    from face_d2.detectors.onnx_detector import Settings as Settings
    from face_d2.detectors.registry import ONNX_DETECTORS as ONNX_DETECTORS
    from face_d2.detectors.registry import open_onnx as open_onnx

_LAZY = {
    "About": "base",
    "Detections": "base",
    "Detector": "base",
    "ONNX_DETECTORS": "registry",
    "OnnxDetector": "onnx_detector",
    "Settings": "onnx_detector",
    "open_onnx": "registry",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
