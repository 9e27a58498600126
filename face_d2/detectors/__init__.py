"""Face detectors of anybody's under one interface: an image in, boxes and scores out.

``open_onnx(FILE)`` recognizes a file and opens it. Each adapter takes the settings with which the
detector's authors evaluate it. NumPy, OpenCV and ONNX Runtime run all that are ONNX files.
"""

from __future__ import annotations

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
