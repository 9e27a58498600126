"""Sums of rectangles on maps, linear in rectangles plus cells, without waiting for a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["part_indices", "sum_rectangles"]


def part_indices(parts: Sequence[Tensor]) -> Tensor:
    """(M,) int64: for each row of the concatenated parts the index of its part, such as the image
    of each face of a batch."""
    # Created on the device, because copying a list to a GPU would make the host wait.
    return torch.cat([p.new_full((len(p),), n, dtype=torch.int64) for n, p in enumerate(parts)])


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
    for x, y, sign in ((left, top, 1), (right, bottom, 1), (right, top, -1), (left, bottom, -1)):
        differences.index_add_(0, (maps * (height + 1) + y) * (width + 1) + x, weights * sign)
    sums = differences.view(count, height + 1, width + 1)
    sums = sums.cumsum(1, dtype=weights.dtype).cumsum(2, dtype=weights.dtype)
    return sums[:, :height, :width]
