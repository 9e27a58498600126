"""Adapters that give face detectors of other projects one interface.

``open_onnx(FILE)`` recognizes a file and opens it. Each adapter uses the settings with which the
authors evaluate the detector. ONNX files need NumPy, OpenCV and ONNX Runtime only.
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
