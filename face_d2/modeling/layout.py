"""The memory layout of a model."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["use_fast_layout"]


def use_fast_layout(model: nn.Module) -> None:
    """Changes a model on the CPU, in place, to channels last, in which oneDNN's convolutions are
    faster (benchmarks/memory_format.py). Models on other devices stay as they are."""
    if next(model.parameters()).device.type == "cpu":
        model.to(memory_format=torch.channels_last)
