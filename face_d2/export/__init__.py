"""ONNX files of the detectors."""
