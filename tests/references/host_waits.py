"""Counts the operations that make the host wait for a GPU, on any device.

They are those whose result decides the size of a tensor or becomes a Python number, and copies of
Python numbers to tensors, which block the host where the tensor is on a GPU.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_AS_MASK = (torch.bool, torch.uint8)


class HostWaits(TorchDispatchMode):
    """A context whose ``reads`` and ``copies`` count by the operation's name.

    Attributes:
        reads: results that the host waits for.
        copies: Python values that become tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self._calls = _Calls(self)

    def __enter__(self) -> HostWaits:
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._calls.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "bincount"):
            self.reads[name] += 1
        elif name == "repeat_interleave" and kwargs.get("output_size") is None:
            self.reads[name] += 1
        elif name in ("index", "index_put_", "index_put", "_index_put_impl_"):
            # A mask that is set to one number becomes masked_fill, which waits for nothing.
            if name == "index" or args[2].numel() > 1 or len(args[1]) > 1:
                masks = [i for i in args[1] if i is not None and i.dtype in _AS_MASK]
                if masks:
                    self.reads[f"{name} by mask"] += len(masks)
        return func(*args, **kwargs)


class _Calls(TorchFunctionMode):
    """What the dispatcher does not see: on a CPU these read or fill memory directly."""

    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy"):
            self._waits.reads[name] += 1
        elif name in ("tensor", "as_tensor", "new_tensor") and not isinstance(
            args[-1], torch.Tensor
        ):
            self._waits.copies[name] += 1
        return func(*args, **(kwargs or {}))
