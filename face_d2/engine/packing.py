"""Batches with few tensors, for the way from the workers to the training process."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["PackedBatch"]


class PackedBatch:
    """A batch whose tensors are laid one behind the other, in one tensor per type.

    Every tensor that a worker sends has to be opened in the training process, in a thread that
    holds Python's lock, while the GPU waits for launches. 32 crops with their boxes have 128.

    Args:
        batch: anything that can be pickled. Tensors of special kinds (subclasses, sparse ones,
            those that require gradients, and so on) are pickled with the rest.
    """

    def __init__(self, batch: Any) -> None:
        file = io.BytesIO()
        pickler = _Pickler(file)
        pickler.dump(batch)
        self._content = file.getvalue()
        self._shapes = [(str(t.dtype), t.shape) for t in pickler.tensors]
        flat: dict[str, list[Tensor]] = {}
        for tensor in pickler.tensors:
            flat.setdefault(str(tensor.dtype), []).append(tensor.reshape(-1))
        self.tensors = {dtype: torch.cat(parts) for dtype, parts in flat.items()}

    def pin_memory(self) -> PackedBatch:
        """Called by PyTorch's DataLoader with ``pin_memory``; moves the tensors there."""
        self.tensors = {dtype: tensor.pin_memory() for dtype, tensor in self.tensors.items()}
        return self

    def unpack(self) -> Any:
        """The batch; its tensors are views of the few."""
        counts: dict[str, list[int]] = {dtype: [] for dtype in self.tensors}
        for dtype, shape in self._shapes:
            counts[dtype].append(shape.numel())
        parts = {dtype: iter(self.tensors[dtype].split(sizes)) for dtype, sizes in counts.items()}
        tensors = [next(parts[dtype]).view(shape) for dtype, shape in self._shapes]
        return _Unpickler(io.BytesIO(self._content), tensors).load()


class _Pickler(pickle.Pickler):
    """Leaves tensors out and collects them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []

    def persistent_id(self, obj: Any) -> int | None:
        if not _is_plain(obj):
            return None
        self.tensors.append(obj)
        return len(self.tensors) - 1


def _is_plain(obj: Any) -> bool:
    """Whether an object is a tensor that its values, shape and type describe."""
    return (
        type(obj) is Tensor
        and obj.layout == torch.strided
        and obj.device.type == "cpu"
        and not (obj.requires_grad or obj.is_quantized or obj.is_nested)
    )


class _Unpickler(pickle.Unpickler):
    """Puts the tensors back."""

    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, pid: int) -> Tensor:
        return self._tensors[pid]
