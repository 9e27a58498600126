"""Freezing of backbone parameters on which no used map depends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.modeling import Backbone

__all__ = ["freeze_unused"]

_SIDE = 64  # side of the image that is passed through the network


def freeze_unused(backbone: Backbone, in_features: Sequence[str], channels: int) -> None:
    """Freezes the parameters that get no gradient from the chosen maps.

    DistributedDataParallel waits for the gradients of all parameters that require one. If all maps
    are chosen, nothing is done.

    Args:
        backbone: computes the maps; it is run to find the parameters on which the maps depend.
        in_features: the chosen maps.
        channels: channels of the images.
    """
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    if not parameters or set(in_features) == set(backbone.output_shape()):
        return
    side = math.lcm(_SIDE, max(backbone.size_divisibility, 1))
    was_training = backbone.training
    backbone.eval()  # keeps the statistics of normalization
    with torch.enable_grad():
        maps = backbone(torch.zeros(1, channels, side, side, device=parameters[0].device))
        total = sum(maps[name].sum() for name in in_features)
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    backbone.train(was_training)
    for parameter, gradient in zip(parameters, gradients):
        parameter.requires_grad_(gradient is not None)
