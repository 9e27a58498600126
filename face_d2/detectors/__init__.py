"""Adapters that give face detectors of other projects one interface.

``open_onnx(FILE)`` recognizes a file and opens it. Each adapter uses the settings with which the
authors evaluate the detector. ONNX files need NumPy, OpenCV and ONNX Runtime only.
"""

from face_d2.detectors.base import About, Detections, Detector
from face_d2.detectors.onnx_detector import OnnxDetector, Settings
from face_d2.detectors.registry import ONNX_DETECTORS, open_onnx

__all__ = [
    "ONNX_DETECTORS",
    "About",
    "Detections",
    "Detector",
    "OnnxDetector",
    "Settings",
    "open_onnx",
]
