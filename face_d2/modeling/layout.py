"""The memory layout of a model."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["use_fast_layout"]


def use_fast_layout(model: nn.Module, precision: torch.dtype | None = None) -> None:
    """Changes a model, in place, to channels last where its convolutions are faster: on the CPU
    (benchmarks/memory_format.py), and on GPUs in mixed precision (docs/reproduce.md).

    Args:
        model: all of it on one device.
        precision: the precision of mixed-precision training; None is float32.
    """
    if next(model.parameters()).device.type == "cpu" or precision is not None:
        model.to(memory_format=torch.channels_last)
