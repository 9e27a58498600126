"""ONNX files made for a test: their outputs are constants, whatever the image shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["constant_graph", "echo_graph"]


def constant_graph(
    path: Path,
    outputs: Mapping[str, NDArray[np.float32]],
    size: Sequence[int | str] = ("height", "width"),
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A file with one input "image" (1, 3, *size) and these outputs."""
    nodes = [
        helper.make_node(
            "Constant",
            [],
            [name],
            value=numpy_helper.from_array(np.ascontiguousarray(value, np.float32), f"{name}_value"),
        )
        for name, value in outputs.items()
    ]
    # The input has to be used.
    nodes.append(helper.make_node("Identity", ["image"], ["unused"]))
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(np.shape(value)))
        for name, value in outputs.items()
    ]
    return _save(path, nodes, infos, size, metadata)


def echo_graph(path: Path, size: Sequence[int | str] = ("height", "width")) -> Path:
    """A file that gives back what it is given."""
    info = helper.make_tensor_value_info("echo", TensorProto.FLOAT, [1, 3, *size])
    return _save(path, [helper.make_node("Identity", ["image"], ["echo"])], [info], size, None)


def _save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[onnx.ValueInfoProto],
    size: Sequence[int | str],
    metadata: Mapping[str, str] | None,
) -> Path:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *size])
    graph = helper.make_graph(list(nodes), "test", [image], list(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, str(path))
    return path
