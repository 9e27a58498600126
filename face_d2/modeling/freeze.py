"""Freezing of backbone parameters on which no used map depends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.modeling import Backbone
from torch import Tensor, nn

__all__ = ["freeze_unused", "reached"]

_SIDE = 64  # side of the image that is passed through the network


def freeze_unused(backbone: Backbone, in_features: Sequence[str], channels: int) -> None:
    """Freezes the parameters that get no gradient from the chosen maps.

    DistributedDataParallel waits for the gradients of all parameters that require one. The backbone
    is run on an image of ``channels`` channels to find them. If all maps are chosen, nothing is
    done.
    """
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    if not parameters or set(in_features) == set(backbone.output_shape()):
        return
    side = math.lcm(_SIDE, max(backbone.size_divisibility, 1))
    was_training = backbone.training
    backbone.eval()  # keeps the statistics of normalization
    with torch.enable_grad():
        maps = backbone(torch.zeros(1, channels, side, side, device=parameters[0].device))
        used = reached([maps[name] for name in in_features], parameters)
    backbone.train(was_training)
    for parameter in parameters:
        parameter.requires_grad_(parameter in used)


def reached(maps: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> set[nn.Parameter]:
    """The parameters, all trainable, on which at least one of the maps depends."""
    total = sum(one.sum() for one in maps)
    if not total.requires_grad:  # all layers below the maps are frozen
        return set()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
    return {p for p, gradient in zip(parameters, gradients) if gradient is not None}
