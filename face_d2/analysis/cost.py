"""The cost of a detector: parameters, operations, time per image."""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from face_d2.config import with_weights
from face_d2.data.mapper import FaceDatasetMapper, ground_truth_instances
from face_d2.engine.checkpoint import FaceCheckpointer

__all__ = ["FLOPS_SIZE", "build_random", "count_flops", "measure_cost", "noise_batch"]

#: (height, width) for counting operations, the size for comparisons in LFFD's paper.
FLOPS_SIZE = (480, 640)
_TIMED_IMAGES, _WARM_UP = 20, 3


class _Maps(nn.Module):
    """Makes ``forward_maps`` the ``forward`` of a module, for tracing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.model.forward_maps(images)


def build_random(cfg: CfgNode) -> nn.Module:
    """The model of a config in training mode, with random weights and finite maps.

    Frozen normalization does not normalize the maps of random weights; each residual unit would
    double the variance.
    """
    torch.manual_seed(0)
    model = build_model(cfg).train()
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and "conv3" in name:
            module.weight.fill_(0.1)
    return model


def noise_batch(images: int, side: int, *, pin: bool = False) -> list[dict[str, Any]]:
    """Training inputs as the loaders give them: square images of noise with ten faces each."""
    generator = torch.Generator().manual_seed(0)
    batch = []
    for _ in range(images):
        image = torch.randint(256, (3, side, side), dtype=torch.uint8, generator=generator)
        corners = torch.rand(10, 2, generator=generator) * side * 0.7
        sides = 8 + torch.rand(10, 1, generator=generator) * side * 0.2
        boxes = torch.cat([corners, corners + sides], dim=1)
        faces = ground_truth_instances(boxes, torch.zeros(10, dtype=torch.bool), (side, side))
        batch.append({"image": image.pin_memory() if pin else image, "instances": faces})
    return batch


def count_flops(model: nn.Module, size: tuple[int, int] = FLOPS_SIZE) -> dict[str, float]:
    """Multiply-adds of ``forward_maps`` on one image for each module, counted by fvcore.

    Args:
        model: a detector with ``forward_maps``, on any device.
        size: (height, width) of the image.

    Returns:
        Dotted name of a module -> its multiply-adds, including submodules; "" is the whole model.
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
        cfg: the config of the detector; images of ``DATASETS.TEST`` are used for timing.
        weights: the checkpoint, because the number of detections influences the time.

    Returns:
        ``parameters``: number of parameters in training; ``gflops``: 10^9 multiply-adds at
        inference for ``flops_size``; ``ms_per_image``: median over test images, from the resized
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
    times = []
    for item in [*inputs[:_WARM_UP], *inputs]:
        begun = time.perf_counter()
        model([item])
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[min(_WARM_UP, len(inputs)) :])
