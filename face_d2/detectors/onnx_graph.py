"""Reads the inputs and outputs of an ONNX file and runs it."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from face_d2.utils.onnx_session import open_session
from face_d2.utils.requirements import require

__all__ = ["OnnxGraph", "Signature", "Tensor"]


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, its shape (None where a side is free), and its type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "tensor(float)"


@dataclass(frozen=True)
class Signature:
    """Inputs, outputs and metadata of a file.

    Attributes:
        inputs: name, shape and type of each input.
        outputs: name, shape and type of each output, in the order of the file.
        metadata: the key-value pairs in the file.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def last_sides(self) -> tuple[int | None, ...]:
        """The last side of every output."""
        return tuple(output.shape[-1] if output.shape else None for output in self.outputs)

    @property
    def channels(self) -> tuple[int | None, ...]:
        """The second side of every output, the channels of a map."""
        return tuple(output.shape[1] if len(output.shape) > 1 else None for output in self.outputs)

    @property
    def canvas(self) -> tuple[int, int] | None:
        """Fixed (height, width) of the input; None if the input accepts any size."""
        shape = self.inputs[0].shape
        height, width = shape[-2:] if len(shape) == 4 else (None, None)
        return None if height is None or width is None else (height, width)

    def __str__(self) -> str:
        def listed(tensors: Sequence[Tensor]) -> str:
            return ", ".join(
                f"{tensor.name} ({' x '.join('?' if s is None else str(s) for s in tensor.shape)})"
                for tensor in tensors
            )

        return f"inputs {listed(self.inputs)}; outputs {listed(self.outputs)}"


class OnnxGraph:
    """Runs an ONNX file in ONNX Runtime, on the CPU.

    Args:
        path: the file.
        threads: number of CPU threads; 0 uses the default of the runtime.
        free_size: run the graph at any input size even if the file has a fixed one. This is correct
            only if no constant of the graph depends on the size.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: ONNX Runtime is not installed, or ``free_size`` is set and onnx is not.
        ValueError: the file is not an ONNX model, or does not have exactly one input.
    """

    def __init__(
        self, path: str | os.PathLike[str], threads: int = 0, free_size: bool = False
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                f"ONNX Runtime does not import ({error}): pip install onnxruntime"
            ) from error
        model = _with_free_size(self.path) if free_size else self.path
        try:
            self._session = open_session(model, threads)
        except Exception as error:  # ONNX Runtime has its own exceptions
            raise ValueError(f"{path}: cannot be loaded as an ONNX model ({error})") from error
        self.runtime = f"ONNX Runtime {onnxruntime.__version__} on CPU"
        self.signature = Signature(
            tuple(map(_tensor, self._session.get_inputs())),
            tuple(map(_tensor, self._session.get_outputs())),
            dict(self._session.get_modelmeta().custom_metadata_map),
        )
        if len(self.signature.inputs) != 1:
            raise ValueError(
                f"{path}: has {len(self.signature.inputs)} inputs; expected one, the image"
            )

    def run(self, blob: NDArray[Any]) -> list[NDArray[Any]]:
        """Computes the outputs for one input."""
        return self._session.run(None, {self.signature.inputs[0].name: blob})

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal digits."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def parameters(self) -> int | None:
        """Number of weights: the floating-point constants of one or more dimensions.

        None if the package onnx is not installed.
        """
        try:
            import onnx
        except ImportError:
            return None
        kinds = onnx.TensorProto
        floats = {kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.INT8}
        graph = onnx.load(str(self.path), load_external_data=False).graph
        constants = [a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute]
        return sum(
            math.prod(tensor.dims)
            for tensor in [*graph.initializer, *constants]
            if tensor.data_type in floats and len(tensor.dims)
        )


def _tensor(value: Any) -> Tensor:
    shape = tuple(side if isinstance(side, int) and side > 0 else None for side in value.shape)
    return Tensor(value.name, shape, value.type)


def _with_free_size(path: Path) -> bytes:
    """The model with free batch size, height and width of inputs and outputs."""
    require("onnx")
    import onnx

    model = onnx.load(str(path))
    for value in [*model.graph.input, *model.graph.output]:
        for axis, side in enumerate(value.type.tensor_type.shape.dim):
            if axis != 1:
                side.dim_param = f"{value.name}_{axis}"
    del model.graph.value_info[:]
    return model.SerializeToString()
