"""Face detectors of anybody's under one interface: an image in, boxes and scores out.

``open_detector("yunet:FILE")`` opens one. Each adapter takes the settings with which the detector's
authors evaluate it. NumPy, OpenCV and ONNX Runtime run all that are ONNX files.
"""

from __future__ import annotations

_LAZY = {
    "About": "base",
    "Detections": "base",
    "Detector": "base",
    "DetectorSpec": "registry",
    "ONNX_DETECTORS": "registry",
    "OnnxDetector": "onnx_detector",
    "RecordedDetections": "recorded",
    "Settings": "onnx_detector",
    "open_detector": "registry",
    "open_onnx": "registry",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
