"""An exponential moving average (EMA) of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

__all__ = ["ModelEMA", "build_ema"]


class ModelEMA:
    """Averages the weights of a model over its training steps.

    After update t (t = 0, 1, ...) an average is ``d * average + (1 - d) * weight`` with
    ``d = min(decay, (1 + t) / (10 + t))``. The influence of the initial weights therefore vanishes
    within a few steps.

    All parameters are averaged, and also the buffers that prediction uses (statistics of
    BatchNorm), so that they fit the averaged weights. Integer and scalar buffers, which are
    training counters, are copied.

    Averages are on the device of the weights and have the same precision. The processes of a
    distributed training have equal averages without communication, because their weights are equal.
    As in Detectron2, the statistics of plain BatchNorm differ between processes.

    Args:
        model: the model without its distributed wrapper, on its device.
        decay: maximum of d, at least 0 and below 1; otherwise a ValueError is raised.

    Attributes:
        updates: number of steps averaged so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(
                f"SOLVER.EMA.DECAY is {decay}; expected a share of at least 0 and below 1, "
                "for example 0.999."
            )
        self._model = model
        self._decay = decay
        self._own: dict[str, Tensor] | None = None  # the model's weights while averages are applied
        self.start()

    def start(self) -> None:
        """Resets the average to the current weights of the model."""
        self.updates = 0
        self._averages = _copy(self._model.state_dict())

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average. Call it once after every optimizer step."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for name, weight in self._model.state_dict().items():
            if weight.is_floating_point() and weight.dim() > 0:
                averages.append(self._averages[name])
                weights.append(weight)
            else:
                self._averages[name].copy_(weight)
        torch._foreach_lerp_(averages, weights, 1 - decay)
        self.updates += 1

    def averages(self) -> dict[str, Tensor]:
        """The averaged weights (not copies) by their names in the model's ``state_dict``."""
        return dict(self._averages)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """In this context, the model has the averaged weights; afterwards, it has its own again."""
        self._own = _copy(self._model.state_dict())
        self._model.load_state_dict(self._averages)
        try:
            yield
        finally:
            self._model.load_state_dict(self._own)
            self._own = None  # last, because an interrupt can occur before

    def state_dict(self) -> dict[str, Any]:
        """The trained weights, which a resumed training needs in addition to the averages.

        This also works inside :meth:`applied`. The averages themselves are ``model`` in the
        checkpoint (:class:`face_d2.engine.checkpoint.FaceCheckpointer`).
        """
        return {"updates": self.updates, "weights": self._own or self._model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`. The model must have the averages of the checkpoint."""
        self.start()
        self.updates = state["updates"]
        self._model.load_state_dict(state["weights"])


def build_ema(cfg: CfgNode, model: nn.Module) -> ModelEMA | None:
    """Builds the average according to ``SOLVER.EMA``; None if it is disabled.

    Raises:
        ValueError: ``SOLVER.EMA.DECAY`` is out of range, or ``TEST.PRECISE_BN`` is enabled too,
            which would measure the statistics of weights that are not evaluated.
    """
    if not cfg.SOLVER.EMA.ENABLED:
        return None
    if cfg.TEST.PRECISE_BN.ENABLED:
        raise ValueError(
            "SOLVER.EMA.ENABLED and TEST.PRECISE_BN.ENABLED cannot be combined: PreciseBN measures "
            "the statistics of the training weights, but the averaged weights are evaluated. "
            "Disable one of them."
        )
    return ModelEMA(model, cfg.SOLVER.EMA.DECAY)


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
