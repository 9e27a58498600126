"""Changes to a traced graph that leave its outputs what they are and make it faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

__all__ = ["tidy"]


def tidy(file: onnx.ModelProto) -> None:
    """Makes a traced graph faster, in place.

    Every layer gets its own weights, constant padding becomes part of the convolution behind it,
    and a resize runs only where it changes the size.
    """
    _unshare(file.graph)
    for node in [node for node in file.graph.node if node.op_type == "Pad"]:
        _fold_padding(file, node)
    for node in [node for node in file.graph.node if node.op_type == "Resize"]:
        if len(node.input) == 4 and node.input[3]:  # by sizes, which images may have already
            _skip_if_same_size(file.graph, node)


def _unshare(graph: onnx.GraphProto) -> None:
    """Replaces every Identity of a constant by a copy.

    The exporter stores equal weights (fresh biases are all zero) once, behind Identity nodes, and
    behind those ONNX Runtime does not see that a convolution can be calculated in int8.
    """
    constants = {constant.name: constant for constant in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity"]:
        if node.input[0] in constants:
            copy = TensorProto()
            copy.CopyFrom(constants[node.input[0]])
            copy.name = node.output[0]
            graph.initializer.append(copy)
            graph.node.remove(node)


def _fold_padding(file: onnx.ModelProto, pad: onnx.NodeProto) -> None:
    """Lets the convolution behind a constant padding with zeros pad by itself.

    A padding of its own writes the map once more, and takes ONNX Runtime out of the memory layout
    that its convolutions use. Paddings that depend on the size of the image stay.
    """
    graph = file.graph
    behind = [node for node in graph.node if pad.output[0] in node.input]
    if [node.op_type for node in behind] != ["Conv"] or behind[0].input[0] != pad.output[0]:
        return
    if pad.output[0] in {output.name for output in graph.output}:
        return
    settings = {
        attribute.name: helper.get_attribute_value(attribute) for attribute in pad.attribute
    }
    if settings.get("mode", b"constant") != b"constant" or len(pad.input) > 3:
        return
    if len(pad.input) == 3 and pad.input[2]:
        value = _constant(file, pad.input[2])
        if value is None or value.any():
            return
    amounts = _constant(file, pad.input[1])  # begin of every dimension, then their ends
    if amounts is None or (amounts < 0).any() or amounts.reshape(2, -1)[:, :2].any():
        return
    (conv,) = behind
    given = {attribute.name: attribute for attribute in conv.attribute}
    if "auto_pad" in given and given["auto_pad"].s != b"NOTSET":
        return
    added = amounts.reshape(2, -1)[:, 2:].ravel().tolist()
    if "pads" in given:
        added = [old + new for old, new in zip(given["pads"].ints, added)]
        conv.attribute.remove(given["pads"])
    conv.attribute.append(helper.make_attribute("pads", added))
    conv.input[0] = pad.input[0]
    graph.node.remove(pad)


def _constant(file: onnx.ModelProto, name: str) -> NDArray[Any] | None:
    """The value of a tensor that no input has an influence on; None if one has."""
    producers = {output: node for node in file.graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in file.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    used: dict[str, TensorProto] = {}
    open_names, seen = [name], set()
    while open_names:
        wanted = open_names.pop()
        if not wanted or wanted in seen:
            continue
        seen.add(wanted)
        if wanted in weights:
            used[wanted] = weights[wanted]
        elif wanted in producers:
            nodes.append(producers[wanted])
            open_names.extend(producers[wanted].input)
        else:
            return None
    ordered = [node for node in file.graph.node if any(node is one for one in nodes)]
    result = helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None)
    graph = helper.make_graph(ordered, "constant", [], [result], list(used.values()))
    model = helper.make_model(graph, opset_imports=file.opset_import, ir_version=file.ir_version)
    return np.asarray(ReferenceEvaluator(model).run(None, {})[0])


def _skip_if_same_size(graph: onnx.GraphProto, resize: onnx.NodeProto) -> None:
    """Splits the batch in front of a resize into those that need it, all or none, and the rest.

    LFFD enlarges small images only, but a resize to the same size takes a tenth of int8's time. (An
    If would say it plainly; OpenVINO 2026.4 reads an If's old result when images grow.)
    """
    images, sizes, output = resize.input[0], resize.input[3], resize.output[0]
    numbers = {"zero": [0], "one": [1], "four": [4]}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), f"{output}_{name}")
        for name, value in numbers.items()
    )

    def node(kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> onnx.NodeProto:
        own = {images: images, sizes: sizes}
        names = [own.get(value, f"{output}_{value}") for value in inputs]
        result = "" if name == "output" else f"_{name}"
        label = f"{output}{result}_node"
        return helper.make_node(kind, names, [f"{output}{result}"], name=label, **attributes)

    resized = onnx.NodeProto()
    resized.CopyFrom(resize)
    resized.input[0], resized.input[3] = f"{output}_others", f"{output}_others_shape"
    resized.output[0] = f"{output}_resized"
    nodes = [
        node("Shape", [images], "shape"),
        node("Equal", ["shape", sizes], "equal"),
        node("Cast", ["equal"], "equal_number", to=TensorProto.INT64),
        node("ReduceMin", ["equal_number"], "all_equal", keepdims=1),  # (1,) 0 or 1
        node("Slice", ["shape", "zero", "one", "zero"], "count"),
        node("Mul", ["count", "all_equal"], "kept_count"),
        node("Sub", ["count", "kept_count"], "others_count"),
        node("Slice", [sizes, "one", "four", "zero"], "channels_and_size"),
        node("Concat", ["kept_count", "channels_and_size"], "kept_shape", axis=0),
        node("Concat", ["others_count", "channels_and_size"], "others_shape", axis=0),
        node("Slice", [images, "zero", "kept_count", "zero"], "kept_as_they_are"),
        node("Slice", [images, "kept_count", "count", "zero"], "others"),
        node("Reshape", ["kept_as_they_are", "kept_shape"], "kept", allowzero=1),
        resized,
        node("Concat", ["kept", "resized"], "output", axis=0),
    ]
    place = list(graph.node).index(resize)
    graph.node.remove(resize)
    for offset, new in enumerate(nodes):
        graph.node.insert(place + offset, new)
