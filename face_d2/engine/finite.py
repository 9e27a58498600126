"""A loss that is infinite or NaN in one process stops all of them before their next step."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import get_event_storage
from torch import Tensor

from face_d2.modeling.reduce import sum_over_processes

__all__ = ["FiniteLossTrainer", "NonFiniteLossError"]


class NonFiniteLossError(FloatingPointError):
    """Raised in every process when the losses of at least one are infinite or NaN.

    Args:
        iteration: when it happened.
        losses: of this process.

    Attributes:
        is_own: whether this process's losses are.
    """

    def __init__(self, iteration: int, losses: dict[str, Tensor]) -> None:
        self.is_own = not bool(_is_finite(losses))
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        super().__init__(
            f"Loss became infinite or NaN at iteration={iteration}!\nloss_dict = {values}"
        )


class FiniteLossTrainer(SimpleTrainer):
    """Detectron2's ``SimpleTrainer``, which all processes leave before the weights are touched.

    Detectron2 looks at the mean of the processes' losses, in the main process alone: the others
    would step with the gradients, which are NaN everywhere, and nobody knows whose loss it was.
    """

    def _write_metrics(self, loss_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> None:
        # Called between the gradients and the optimizer's step.
        broken = torch.logical_not(_is_finite(loss_dict)).float()
        if sum_over_processes(broken) > 0:
            raise NonFiniteLossError(get_event_storage().iter, loss_dict)
        super()._write_metrics(loss_dict, *args, **kwargs)


def _is_finite(losses: dict[str, Tensor]) -> Tensor:
    return torch.isfinite(sum(losses.values()).detach())
