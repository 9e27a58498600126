"""Parameters of a backbone that nothing is learned for, because no chosen map depends on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.modeling import Backbone

__all__ = ["freeze_unused"]

_SIDE = 64  # of the image that is followed through the network


def freeze_unused(backbone: Backbone, in_features: Sequence[str], channels: int) -> None:
    """Lets no parameter require a gradient that it cannot get from the chosen maps.

    DistributedDataParallel waits for the gradients of all that require one. Where all maps are
    chosen, nothing is done.

    Args:
        backbone: gives the maps; which of its parameters a map depends on is found by running it.
        in_features: the chosen maps.
        channels: of the images.
    """
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    if not parameters or set(in_features) == set(backbone.output_shape()):
        return
    side = math.lcm(_SIDE, max(backbone.size_divisibility, 1))
    was_training = backbone.training
    backbone.eval()  # statistics of normalisation stay as they are
    with torch.enable_grad():
        maps = backbone(torch.zeros(1, channels, side, side, device=parameters[0].device))
        total = sum(maps[name].sum() for name in in_features)
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    backbone.train(was_training)
    for parameter, gradient in zip(parameters, gradients):
        parameter.requires_grad_(gradient is not None)
