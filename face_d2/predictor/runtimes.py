"""ONNX Runtime and OpenVINO: a file with one image input as a function of an array."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import openvino

__all__ = ["RUNTIMES", "Graph", "open_graph", "openvino_core"]

#: By speed on a CPU, the fastest first.
RUNTIMES = ("openvino", "onnxruntime")


@dataclass(frozen=True)
class Graph:
    """A loaded file.

    Attributes:
        run: images, of ``dtype`` and ``shape``, to the outputs.
        dtype: of the input, uint8 or float32.
        shape: of the input, None where it is free.
        metadata: what the file says of itself.
        runtime: name, version and device, for the record.
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
        threads: CPU threads; 0 leaves it to the runtime.

    Raises:
        ImportError: the runtime is not installed.
        Exception: the runtime's own, if the file is damaged or has several inputs.
    """
    start = {"onnxruntime": _open_in_onnxruntime, "openvino": _open_in_openvino}[runtime]
    return start(str(path), threads)


def _open_in_onnxruntime(path: str, threads: int) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # shapes that change between images are no news
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
    """OpenVINO's runtime, one for the process.

    With its first network a core gives the thread another stack for signals, and takes it back when
    it goes. Of two cores the second to go would leave the first one's stack, which is no longer
    there, and the next signal, a child's end or Ctrl-C, would end the process (seen in 2026.4).
    """
    import openvino

    return openvino.Core()


def _open_in_openvino(path: str, threads: int) -> Graph:
    import openvino

    core = openvino_core()
    model = core.read_model(path)
    source = model.input()
    # By itself OpenVINO calculates in bfloat16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(threads)}
    compiled = core.compile_model(model, "CPU", settings)

    def run(images: NDArray[Any]) -> list[NDArray[Any]]:
        answers = compiled(images)
        return [answers[index] for index in range(len(answers))]

    return Graph(
        run=run,
        dtype=np.uint8 if source.element_type == openvino.Type.u8 else np.float32,
        shape=tuple(s.get_length() if s.is_static else None for s in source.partial_shape),
        metadata=_openvino_metadata(model),
        runtime=f"OpenVINO {openvino.__version__.split('-')[0]} on CPU",
    )


def _openvino_metadata(model: openvino.Model) -> dict[str, str]:
    if "framework" not in model.get_rt_info():  # a file that says nothing of itself
        return {}
    return {key: str(value) for key, value in model.get_rt_info("framework").value.items()}
