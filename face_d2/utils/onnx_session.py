"""Opens ONNX files in ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["open_session"]


def open_session(
    file: str | Path | bytes, threads: int = 0, folded: Path | None = None
) -> InferenceSession:
    """Loads a file without warnings, of which old exporters and dynamic shapes cause many.

    Args:
        file: the path or the content of an ONNX file.
        threads: number of CPU threads; 0 uses the default of the runtime.
        folded: where to write the file with computed constants, in standard operators only.
    """
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    if folded is not None:
        options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
    source = str(file) if isinstance(file, Path) else file
    return InferenceSession(source, options, providers=["CPUExecutionProvider"])
