"""Storage of ONNX weights in half precision if this is exact."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

__all__ = ["store_in_half"]

#: Smaller tensors are not changed, because their casts would cost more than they save.
_MIN_ELEMENTS = 256


def store_in_half(model: ModelProto) -> int:
    """Stores float32 tensors as float16 followed by a cast, in place.

    Only tensors with values that float16 represents exactly are changed, such as those of a network
    that was loaded from half-precision weights. The outputs therefore stay the same bit for bit.
    Runtimes compute the casts once, when they load the file.

    Returns:
        The number of changed tensors.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < _MIN_ELEMENTS or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for place, cast in enumerate(casts):
        model.graph.node.insert(place, cast)
    return len(casts)
