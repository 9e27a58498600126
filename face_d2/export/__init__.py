"""ONNX files of the detectors."""

from face_d2.utils.requirements import require

require("onnx")
