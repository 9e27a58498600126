"""Counts over all processes, for losses that are normalised over the whole batch."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor

__all__ = ["sum_over_processes"]


def sum_over_processes(counts: Tensor) -> Tensor:
    """Sum of ``counts`` over all processes of a distributed training; itself otherwise.

    Gradients are averaged over processes. A loss that is divided by this sum and multiplied by the
    number of processes therefore has the gradient of one process with the whole batch.
    """
    if comm.get_world_size() == 1:
        return counts
    counts = counts.clone()
    torch.distributed.all_reduce(counts)
    return counts
