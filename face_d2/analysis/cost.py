"""What a detector costs: parameters, floating-point operations, time per image."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from face_d2.config import with_weights
from face_d2.data.mapper import FaceDatasetMapper
from face_d2.engine.checkpoint import FaceCheckpointer

__all__ = ["FLOPS_SIZE", "count_flops", "measure_cost"]

#: (height, width) at which operations are counted, the size LFFD's paper compares detectors at.
FLOPS_SIZE = (480, 640)
_TIMED_IMAGES, _WARM_UP = 20, 3


class _Maps(nn.Module):
    """``forward_maps`` as ``forward``, which is what can be traced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.model.forward_maps(images)


def count_flops(model: nn.Module, size: tuple[int, int] = FLOPS_SIZE) -> dict[str, float]:
    """Multiply-adds of ``forward_maps`` on one image, by module, as fvcore counts them.

    Args:
        model: a detector with ``forward_maps``, on any device.
        size: (height, width) of the image.

    Returns:
        Dotted name of a module -> multiply-adds of it and all inside; "" is the whole.
    """
    image = torch.zeros(1, 3, *size, device=next(model.parameters()).device)
    training = model.training
    counter = FlopCountAnalysis(_Maps(model.eval()), image)
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counter.tracer_warnings("none")
    with torch.no_grad():
        counts = counter.by_module()
    model.train(training)
    whole = counts.pop("")
    inside = {name.removeprefix("model").lstrip("."): count for name, count in counts.items()}
    return {**inside, "": whole}


def measure_cost(cfg: CfgNode, weights: str | Path) -> dict[str, Any]:
    """Cost of a trained detector.

    Args:
        cfg: of the detector; ``DATASETS.TEST`` gives the images that are timed.
        weights: its checkpoint: how many boxes it finds is part of the time.

    Returns:
        ``parameters``: of the whole model in training; ``gflops``: 10^9 multiply-adds at
        inference, at ``flops_size``; ``ms_per_image``: median over test images, from the resized
        image in memory to boxes.
    """
    model = build_model(with_weights(cfg, weights)).eval()
    FaceCheckpointer(model).load(str(weights))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflops": count_flops(model)[""] / 1e9,
        "flops_size": list(FLOPS_SIZE),
        "ms_per_image": _milliseconds(model, cfg),
    }


@torch.no_grad()
def _milliseconds(model: nn.Module, cfg: CfgNode) -> float:
    mapper = FaceDatasetMapper(cfg, is_train=False)
    records = DatasetCatalog.get(cfg.DATASETS.TEST[0])[:_TIMED_IMAGES]
    inputs = [mapper(record) for record in records]
    on_gpu = model.device.type == "cuda"
    times = []
    for item in [*inputs[:_WARM_UP], *inputs]:
        begun = time.perf_counter()
        model([item])
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[min(_WARM_UP, len(inputs)) :])
