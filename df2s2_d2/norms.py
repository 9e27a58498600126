"""Normalization layers by Detectron2's names, for maps of any size."""

from __future__ import annotations

import torch
from detectron2.layers import get_norm
from torch import Tensor, nn

__all__ = ["GroupNorm", "build_norm"]

_GROUPS = 32


class GroupNorm(nn.GroupNorm):
    """GroupNorm that accepts groups of a single value and normalizes them to 0.

    The deepest map of a small image has one cell, so a group of one channel has one value.
    PyTorch's module refuses this, even in evaluation; the operator that it calls does not.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def build_norm(key: str, name: str, channels: int) -> nn.Module | None:
    """Builds the normalization layer ``name`` for ``channels`` channels; "" is no layer.

    ``key`` is the config key of ``name``, for error messages.

    Raises:
        ValueError: on an unknown name, or a width that "GN" cannot divide into its 32 groups.
    """
    if name == "GN":
        if channels % _GROUPS:
            raise ValueError(
                f'{key} is "GN", which has {_GROUPS} groups and cannot divide {channels} channels '
                f"into them; make the width a multiple of {_GROUPS}."
            )
        return GroupNorm(_GROUPS, channels)
    try:
        return get_norm(name, channels)
    except KeyError:
        raise ValueError(
            f'{key} is {name!r}; expected "" for none, or a name that Detectron2 knows: "BN", '
            '"SyncBN", "FrozenBN", "GN".'
        ) from None
