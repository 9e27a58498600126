"""Training in mixed precision, in bf16 and fp16, on GPUs and, in bf16, on the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from face_d2.engine.finite import FiniteLossTrainer
from face_d2.utils.choices import check_choice

__all__ = ["MixedPrecisionTrainer", "amp_dtype"]

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_GradScaler = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)  # before torch 2.3


def amp_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The precision of convolutions according to ``SOLVER.AMP``; None for fp32.

    Raises:
        ValueError: ``SOLVER.AMP.PRECISION`` is unknown, or is "float16" on the CPU.
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    precision = cfg.SOLVER.AMP.PRECISION
    check_choice("SOLVER.AMP.PRECISION", precision, sorted(_DTYPES))
    device = torch.device(cfg.MODEL.DEVICE).type
    if precision == "float16" and device != "cuda":
        raise ValueError(
            f'SOLVER.AMP.PRECISION "float16" needs a GPU, MODEL.DEVICE is {cfg.MODEL.DEVICE!r}. '
            'Set SOLVER.AMP.PRECISION "bfloat16", or SOLVER.AMP.ENABLED False for fp32.'
        )
    return _DTYPES[precision]


class MixedPrecisionTrainer(FiniteLossTrainer):
    """Detectron2's ``AMPTrainer`` for fp16 and bf16, on GPUs and the CPU.

    Detectron2's class supports CUDA only, and in 0.5 and 0.6 fp16 only. Weights, gradients,
    optimizer and losses remain in fp32. With fp16, a dynamic loss scale, which is saved in the
    checkpoint, keeps gradients from vanishing. bf16 has the range of fp32 and needs no loss scale.

    Args:
        model, data_loader, optimizer: as for Detectron2's trainers.
        device: type of the device, "cuda" or "cpu".
        dtype: result of :func:`amp_dtype`.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.device, self.dtype = device, dtype
        self.grad_scaler = _GradScaler(enabled=dtype == torch.float16)

    def run_step(self) -> None:
        """One iteration; weights are changed only after the losses were found to be finite."""
        begun = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - begun
        with torch.autocast(self.device, self.dtype):
            losses = self.model(data)
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        self._write_metrics(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if scale := state_dict.get("grad_scaler"):  # absent after training in fp32 or bf16
            self.grad_scaler.load_state_dict(scale)
