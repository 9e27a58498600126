"""Counts over all processes, for losses that are normalized over the whole batch."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor

__all__ = ["sum_over_processes"]


def sum_over_processes(counts: Tensor) -> Tensor:
    """Sum of ``counts`` over all processes; ``counts`` itself if there is only one.

    Gradients are averaged over processes. Therefore, if a loss is divided by this sum and
    multiplied by the number of processes, its gradient is that of one process with the whole batch.
    """
    if comm.get_world_size() == 1:
        return counts
    counts = counts.clone()
    torch.distributed.all_reduce(counts)
    return counts
