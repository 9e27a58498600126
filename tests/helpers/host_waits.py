"""Counts what would make the host wait for a GPU, on a machine that has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Their result, or its size, is read by the host.
_WAITING = {
    "aten::_local_scalar_dense",  # item(), float(tensor), if tensor:
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::repeat_interleave",
    "aten::equal",
}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
# They read or fill a tensor from the host's memory without an operator of their own.
_READING = {"tolist", "numpy", "cpu", "__array__"}
_FILLING = {"tensor", "as_tensor", "new_tensor", "from_numpy"}


@contextmanager
def host_waits() -> Iterator[Counter[str]]:
    """Counts the waits of the code inside: reads by the host, and copies from it.

    Waits inside a backward pass are counted as well. An index by a mask counts once: its cells are
    looked up by ``nonzero``. A list among the indices is a tensor made on the host.
    """
    waits: Counter[str] = Counter()

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args=(), kwargs=None) -> Any:
            name = func._schema.name
            if name in _WAITING:
                waits[name] += 1
            elif name in _INDEXING:
                masks = [
                    i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)
                ]
                waits[f"{name} by a mask"] += len(masks)
            return func(*args, **(kwargs or {}))

    class Functions(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Any, args=(), kwargs=None
        ) -> Any:
            name = getattr(func, "__name__", "")
            if name in _READING | _FILLING:
                waits[name] += 1
            elif name in ("__getitem__", "__setitem__"):
                index = args[1] if isinstance(args[1], tuple) else (args[1],)
                waits["index by a list"] += sum(isinstance(i, list) for i in index)
            return func(*args, **(kwargs or {}))

    with Functions(), Operators():
        yield waits
    for name in [name for name, count in waits.items() if not count]:
        del waits[name]
