"""ONNX Runtime on the CPU, as the checks of exported files use it."""

from __future__ import annotations

from pathlib import Path

from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

__all__ = ["open_session"]


def open_session(file: str | Path | bytes, folded: Path | None = None) -> InferenceSession:
    """Loads a file without warnings.

    Args:
        file: the path or the content of an ONNX file.
        folded: where to write the file with computed constants, in standard operators only.
    """
    options = SessionOptions()
    options.log_severity_level = 3  # errors only
    if folded is not None:
        options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
    source = str(file) if isinstance(file, Path) else file
    return InferenceSession(source, options, providers=["CPUExecutionProvider"])
