"""Normalisation layers by the names that Detectron2 gives them, for maps of any size."""

from __future__ import annotations

import torch
from detectron2.layers import get_norm
from torch import Tensor, nn

__all__ = ["GroupNorm", "build_norm"]

_GROUPS = 32


class GroupNorm(nn.GroupNorm):
    """Normalises single values too, to 0.

    The deepest map of a small image has one cell. Where groups are single channels, PyTorch's
    module refuses it, also in evaluation; the operator below it does not.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def build_norm(key: str, name: str, channels: int) -> nn.Module | None:
    """The layer for maps of ``channels`` that ``name``, the value of ``key``, stands for; "" none.

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
