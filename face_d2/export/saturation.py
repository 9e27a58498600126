"""Int8 convolutions whose sums do not fit into the 16 bits in which some processors add them."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

__all__ = ["saturating_convolutions"]

#: Greatest activation of 8 bits without sign, and what 16 bits with sign hold.
_GREATEST_ACTIVATION = 255
_INT16 = np.iinfo(np.int16)


def saturating_convolutions(file: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the convolutions of which the sum of two products can leave 16 bits.

    x86-64 processors without VNNI multiply unsigned activations by signed weights and add
    neighboring products in 16 bits, with saturation (VPMADDUBSW). Which products are neighbors
    depends on the kernel, so that every pair of an output channel's weights is considered, with the
    activations that make their sum greatest or least.

    Args:
        file: its convolutions take their weights from DequantizeLinear nodes where they are int8;
            those with other weights are not considered.
    """
    constants = {constant.name: constant for constant in file.graph.initializer}
    sources = {
        node.output[0]: node.input[0]
        for node in file.graph.node
        if node.op_type == "DequantizeLinear"
    }
    names = []
    for node in file.graph.node:
        weights = constants.get(sources.get(node.input[1], "")) if node.op_type == "Conv" else None
        if weights is not None and _may_saturate(numpy_helper.to_array(weights)):
            names.append(node.name)
    return tuple(names)


def _may_saturate(weights: NDArray[np.int8]) -> bool:
    """Of (O, I, H, W) weights."""
    ordered = np.sort(weights.reshape(len(weights), -1).astype(np.int64), axis=1)
    greatest = _GREATEST_ACTIVATION * ordered[:, -2:].clip(min=0).sum(axis=1)
    least = _GREATEST_ACTIVATION * ordered[:, :2].clip(max=0).sum(axis=1)
    return bool((greatest > _INT16.max).any() or (least < _INT16.min).any())
