"""Targets and loss of the segmentation branch (arXiv 1811.08557, sections 3.2 and 3.4).

Every level has one mask with the boxes of the faces that the level detects, so that the detection
and segmentation branches learn the same scales. A mask pixel is at the center of a cell, where the
anchors are centered too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor

from df2s2_d2.matching import image_indices
from face_d2.modeling.reduce import sum_over_processes

__all__ = ["area_levels", "box_mask", "box_masks", "segmentation_loss", "segmentation_targets"]

# Minimum and maximum area of the faces in a level's mask, in units of S^2; see area_levels.
_AREA_RANGE = (0.5, 2 * 1.58**2)


def area_levels(boxes: Tensor, base_sizes: Tensor) -> Tensor:
    """Finds the levels whose mask shows a face, by the face's area.

    A level with the smallest anchor side S shows faces with an area from S^2 / 2 to 2 (1.58 S)^2
    (FAN, arXiv 1711.07246).

    Args:
        boxes: (M, 4) XYXY, in pixels of the network's input.
        base_sizes: (L,) S of every level, in the same pixels.

    Returns:
        (M, L) bool.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    relative = areas[:, None] / base_sizes[None] ** 2
    return (relative >= _AREA_RANGE[0]) & (relative <= _AREA_RANGE[1])


def box_mask(boxes: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Union of boxes on the grid of a level.

    A cell is set if its center is inside a box. A box that contains no cell center sets the cell in
    which it lies.

    Args:
        boxes: (M, 4) XYXY pixels of the image.
        stride: stride of the level; cell (x, y) has its center at ((x + 0.5) stride, (y + 0.5)
            stride).
        size: (rows, columns) of the level.

    Returns:
        (rows, columns) bool.
    """
    first = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return box_masks(boxes, first, 1, stride, size)[0]


def box_masks(
    boxes: Tensor, mask: Tensor, num_masks: int, stride: int, size: tuple[int, int]
) -> Tensor:
    """Computes several masks at once; see :func:`box_mask`.

    Args:
        boxes: (M, 4) XYXY pixels.
        mask: (M,) int64, index of the mask that shows each box; -1 for none.
        num_masks: number of masks (K).
        stride, size: stride and size of the level, see :func:`box_mask`.

    Returns:
        (K, rows, columns) bool.
    """
    height, width = size
    first = torch.ceil(boxes[:, :2] / stride - 0.5).long()  # (M, 2) first x, y inside
    past = torch.ceil(boxes[:, 2:] / stride - 0.5).long()
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2 / stride).floor().long()
    small = past <= first
    x0, y0 = torch.where(small, middle, first).unbind(1)
    x1, y1 = torch.where(small, middle + 1, past).unbind(1)
    x0, x1 = x0.clamp(0, width), x1.clamp(0, width)
    y0, y1 = y0.clamp(0, height), y1.clamp(0, height)
    # Marking corners and summing twice takes the same time for one face and for a crowd. If a box
    # lies outside the map, its clamped ends are equal and its marks cancel out.
    corners = torch.zeros(
        num_masks * (height + 1) * (width + 1), dtype=torch.int32, device=boxes.device
    )
    one = (mask >= 0).int()
    top = mask.clamp(min=0) * (height + 1)
    for x, y, sign in ((x0, y0, 1), (x1, y1, 1), (x1, y0, -1), (x0, y1, -1)):
        corners.index_add_(0, (top + y) * (width + 1) + x, sign * one)
    corners = corners.view(num_masks, height + 1, width + 1)
    painted = corners.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
    return painted[:, :height, :width] > 0


def segmentation_loss(
    logits: Sequence[Tensor],
    boxes: Sequence[Tensor],
    ignore: Sequence[Tensor],
    on_level: Sequence[Tensor],
    strides: Sequence[int],
    reduction: str,
) -> Tensor:
    """Per-pixel sigmoid cross-entropy, summed over levels.

    Args:
        logits: per level (N, 1, H, W).
        boxes, ignore, on_level, strides: see :func:`segmentation_targets`.
        reduction: over the pixels of a level: "mean" (over the batches of all processes) or "sum"
            (per image).

    Returns:
        Scalar.
    """
    sizes = [tuple(level.shape[-2:]) for level in logits]
    levels = segmentation_targets(boxes, ignore, on_level, strides, sizes)
    sums = [
        F.binary_cross_entropy_with_logits(
            scores[:, 0].float(), targets, weight=counted, reduction="sum"
        )
        for scores, (targets, counted) in zip(logits, levels)
    ]
    if reduction == "sum":
        return torch.stack(sums).sum() / len(boxes)
    # Gradients are averaged over processes, so the divisor is the mean per process.
    counts = sum_over_processes(torch.stack([counted.sum() for _, counted in levels]))
    divisors = counts.clamp(min=1) / comm.get_world_size()
    return (torch.stack(sums) / divisors).sum()


@torch.no_grad()
def segmentation_targets(
    boxes: Sequence[Tensor],
    ignore: Sequence[Tensor],
    on_level: Sequence[Tensor],
    strides: Sequence[int],
    sizes: Sequence[tuple[int, int]],
) -> list[tuple[Tensor, Tensor]]:
    """Targets of every level and the weights of their pixels.

    Args:
        boxes: per image (M, 4) XYXY faces.
        ignore: per image (M,) ignored faces; their pixels have weight 0 unless another face covers
            them.
        on_level: per image (M, L) bool, the levels that show a face; False for ignored faces.
        strides: per level.
        sizes: per level (rows, columns).

    Returns:
        Per level the masks and the weights of their pixels, (N, rows, columns) float32 each.
    """
    image = image_indices(boxes)
    every, shown = torch.cat(list(boxes)), torch.cat(list(on_level))
    ignored = torch.cat(list(ignore))
    levels = []
    for level, (stride, size) in enumerate(zip(strides, sizes)):
        # N masks of the shown faces, then N masks of the ignored faces.
        mask = torch.where(ignored, image + len(boxes), torch.where(shown[:, level], image, -1))
        faces, covered = box_masks(every, mask, 2 * len(boxes), stride, size).chunk(2)
        levels.append((faces.float(), (faces | ~covered).float()))
    return levels
