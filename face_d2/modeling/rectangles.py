"""Sums of rectangles on maps, linear in rectangles plus cells, without waiting for a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

__all__ = ["part_indices", "part_starts", "sum_rectangles"]


def part_indices(parts: Sequence[Tensor]) -> Tensor:
    """(M,) int64: for each row of the concatenated parts the index of its part, such as the image
    of each face of a batch."""
    # Views of a tensor that is created on the device: copying a list to a GPU would make the host
    # wait, and a tensor per part would take a launch each.
    indices = torch.arange(len(parts), device=parts[0].device).split(1)
    return torch.cat([index.expand(len(part)) for index, part in zip(indices, parts)])


def part_starts(parts: Sequence[Tensor]) -> Tensor:
    """(N,) int64: the index of the first row of each part among the concatenated rows."""
    *starts, end = accumulate(map(len, parts), initial=0)
    rows = torch.arange(end + 1, device=parts[0].device)  # the last parts may be empty
    return torch.cat([rows[start : start + 1] for start in starts])


def sum_rectangles(
    weights: Tensor, maps: Tensor, first: Tensor, past: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """Adds a value to all cells of each rectangle.

    The values are added as differences at the four corners, followed by one cumulative sum.
    Rectangles are cut at the border. An empty one adds nothing, because its differences cancel out.

    Args:
        weights: (M,) integers, the value of each rectangle.
        maps: (M,) int64, the map of each rectangle.
        first: (M, 2) its first column and row, whole numbers of any type.
        past: (M, 2) the column and row behind its last.
        shape: (K, rows, columns) of the maps.

    Returns:
        (K, rows, columns), of the type of ``weights``.
    """
    count, height, width = shape
    # One additional row and column for the differences beyond the border.
    differences = weights.new_zeros(count * (height + 1) * (width + 1))
    ends = []
    for axis, side in enumerate((width, height)):
        low = first[:, axis].clamp(0, side).long()
        ends.append((low, torch.maximum(low, past[:, axis].clamp(0, side).long())))
    (left, right), (top, bottom) = ends
    x = torch.cat([left, right, right, left])
    y = torch.cat([top, bottom, top, bottom])
    signed = torch.cat([weights, weights, -weights, -weights])
    differences.index_add_(0, (maps.repeat(4) * (height + 1) + y) * (width + 1) + x, signed)
    sums = differences.view(count, height + 1, width + 1)
    sums = sums.cumsum(1, dtype=weights.dtype).cumsum(2, dtype=weights.dtype)
    return sums[:, :height, :width]
