"""Finds int8 convolutions whose sums can overflow 16 bits on some processors."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

__all__ = ["saturating_convolutions"]

#: Maximum of an unsigned 8-bit activation, and the range of signed 16 bits.
_MAX_ACTIVATION = 255
_INT16 = np.iinfo(np.int16)


def saturating_convolutions(file: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the convolutions in which the sum of two products can overflow 16 bits.

    x86-64 processors without VNNI multiply unsigned activations by signed weights and add
    neighboring products in 16 bits with saturation (VPMADDUBSW). The kernel determines which
    products are neighbors. Therefore all pairs of weights of an output channel are considered, with
    the activations for which their sum is maximal or minimal.

    Args:
        file: a file whose int8 convolutions get their weights from DequantizeLinear nodes; other
            convolutions are not considered.
    """
    constants = {constant.name: constant for constant in file.graph.initializer}
    sources = {
        node.output[0]: node.input[0]
        for node in file.graph.node
        if node.op_type == "DequantizeLinear"
    }
    names = []
    for node in [node for node in file.graph.node if node.op_type == "Conv"]:
        weights = constants.get(sources.get(node.input[1], ""))
        if weights is not None and _may_saturate(numpy_helper.to_array(weights)):
            names.append(node.name)
    return tuple(names)


def _may_saturate(weights: NDArray[np.int8]) -> bool:
    """Whether a sum can overflow for weights (O, I, H, W)."""
    ordered = np.sort(weights.reshape(len(weights), -1).astype(np.int64), axis=1)
    highest = _MAX_ACTIVATION * ordered[:, -2:].clip(min=0).sum(axis=1)
    lowest = _MAX_ACTIVATION * ordered[:, :2].clip(max=0).sum(axis=1)
    return bool((highest > _INT16.max).any() or (lowest < _INT16.min).any())
