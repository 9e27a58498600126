"""Stops all processes before the optimizer step if one has an infinite or NaN loss."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import get_event_storage
from torch import Tensor

from face_d2.modeling.losses import sum_over_processes

__all__ = ["FiniteLossTrainer", "NonFiniteLossError"]


class NonFiniteLossError(FloatingPointError):
    """Raised in every process if at least one of them has an infinite or NaN loss.

    ``is_own`` tells whether it is this process, whose ``losses`` are in the message.
    """

    def __init__(self, iteration: int, losses: dict[str, Tensor]) -> None:
        self.is_own = not bool(_is_finite(losses))
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        super().__init__(
            f"Loss became infinite or NaN at iteration={iteration}!\nloss_dict = {values}"
        )


class FiniteLossTrainer(SimpleTrainer):
    """Detectron2's ``SimpleTrainer``, with an error in all processes before weights are changed.

    Detectron2 checks the mean of the losses of all processes, in the main process only. The other
    processes would update their weights with NaN gradients, and it would not be known which process
    had the loss.
    """

    def _write_metrics(self, loss_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> None:
        # Called after the backward pass and before the optimizer step.
        broken = torch.logical_not(_is_finite(loss_dict)).float()
        if sum_over_processes(broken) > 0:
            raise NonFiniteLossError(get_event_storage().iter, loss_dict)
        super()._write_metrics(loss_dict, *args, **kwargs)


def _is_finite(losses: dict[str, Tensor]) -> Tensor:
    return torch.isfinite(sum(losses.values()).detach())
