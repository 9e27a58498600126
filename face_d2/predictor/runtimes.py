"""ONNX Runtime and OpenVINO: runs an ONNX file with one image input."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import openvino

__all__ = ["RUNTIMES", "Graph", "open_graph", "openvino_core"]

#: Sorted by speed on a CPU, the fastest first.
RUNTIMES = ("openvino", "onnxruntime")


@dataclass(frozen=True)
class Graph:
    """A loaded file.

    Attributes:
        run: computes the outputs from images of ``dtype`` and ``shape``; several threads may call
            it.
        dtype: dtype of the input, uint8 or float32.
        shape: shape of the input; dynamic dimensions are None.
        metadata: the metadata of the file.
        runtime: name, version and device, for messages.
    """

    run: Callable[[NDArray[Any]], Sequence[NDArray[Any]]]
    dtype: type[np.generic]
    shape: tuple[int | None, ...]
    metadata: Mapping[str, str]
    runtime: str


def open_graph(path: str | os.PathLike[str], runtime: str, threads: int = 0) -> Graph:
    """Loads an ONNX file.

    Args:
        path: the file.
        runtime: one of ``RUNTIMES``.
        threads: number of CPU threads; 0 leaves the choice to the runtime.

    Raises:
        ImportError: the runtime is not installed.
        Exception: an exception of the runtime, if the file is damaged or has several inputs.
    """
    start = {"onnxruntime": _open_in_onnxruntime, "openvino": _open_in_openvino}[runtime]
    return start(str(path), threads)


def _open_in_onnxruntime(path: str, threads: int) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # silence the warning about dynamic shapes
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    return Graph(
        run=lambda images: session.run(None, {source.name: images}),
        dtype=np.uint8 if source.type == "tensor(uint8)" else np.float32,
        shape=tuple(side if isinstance(side, int) else None for side in source.shape),
        metadata=session.get_modelmeta().custom_metadata_map,
        runtime=f"ONNX Runtime {onnxruntime.__version__} on CPU",
    )


@functools.cache
def openvino_core() -> openvino.Core:
    """The OpenVINO core of this process.

    There must be only one. A core replaces the signal stack of the thread when it loads its first
    network, and restores the previous one when it is destroyed. With two cores, the thread can be
    left with the stack of the core that was destroyed first, and the next signal (the end of a
    child process, Ctrl-C) crashes the process (seen in OpenVINO 2026.4).
    """
    import openvino

    return openvino.Core()


def _open_in_openvino(path: str, threads: int) -> Graph:
    import openvino

    core = openvino_core()
    model = core.read_model(path)
    source = model.input()
    # OpenVINO's default is bfloat16 on processors that support it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(threads)}
    compiled = core.compile_model(model, "CPU", settings)
    has_metadata = "framework" in model.get_rt_info()
    metadata = model.get_rt_info("framework").value if has_metadata else {}

    one_at_a_time = threading.Lock()  # all calls of a compiled model share one request

    def run(images: NDArray[Any]) -> list[NDArray[Any]]:
        with one_at_a_time:
            outputs = compiled(images)
        return [outputs[index] for index in range(len(outputs))]

    return Graph(
        run=run,
        dtype=np.uint8 if source.element_type == openvino.Type.u8 else np.float32,
        shape=tuple(s.get_length() if s.is_static else None for s in source.partial_shape),
        metadata={key: str(value) for key, value in metadata.items()},
        runtime=f"OpenVINO {openvino.__version__.split('-')[0]} on CPU",
    )
