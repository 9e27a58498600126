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

from face_d2.modeling.losses import sum_over_processes
from face_d2.modeling.rectangles import part_indices, sum_rectangles

__all__ = ["area_levels", "box_mask", "box_masks", "segmentation_loss", "segmentation_targets"]

# Minimum and maximum area of the faces in a level's mask, in units of S^2; see area_levels.
_AREA_RANGE = (0.5, 2 * 1.58**2)


def area_levels(boxes: Tensor, base_sizes: Tensor) -> Tensor:
    """Finds the levels whose mask shows a face, by the face's area.

    A level with the smallest anchor side S shows faces with an area from S^2 / 2 to 2 (1.58 S)^2
    (FAN, arXiv 1711.07246). From boxes (M, 4) XYXY and S of every level (L,), in pixels of the
    network's input, the result is (M, L) bool.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    relative = areas[:, None] / base_sizes[None] ** 2
    return (relative >= _AREA_RANGE[0]) & (relative <= _AREA_RANGE[1])


def box_mask(boxes: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """(rows, columns) bool: the union of boxes on the grid of a level; see :func:`box_masks`."""
    first = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return box_masks(boxes, first, 1, stride, size)[0]


def box_masks(
    boxes: Tensor, mask: Tensor, num_masks: int, stride: int, size: tuple[int, int]
) -> Tensor:
    """Masks of boxes on the grid of a level.

    A cell is set if its center is inside a box. A box that contains no cell center sets the cell in
    which it lies.

    Args:
        boxes: (M, 4) XYXY pixels of the image.
        mask: (M,) int64, index of the mask that shows each box; -1 for none.
        num_masks: number of masks (K).
        stride: stride of the level; cell (x, y) has its center at ((x + 0.5) stride, (y + 0.5)
            stride).
        size: (rows, columns) of the level.

    Returns:
        (K, rows, columns) bool.
    """
    first = torch.ceil(boxes[:, :2] / stride - 0.5)  # (M, 2) first x, y inside
    past = torch.ceil(boxes[:, 2:] / stride - 0.5)
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2 / stride).floor()
    small = past <= first
    first, past = torch.where(small, middle, first), torch.where(small, middle + 1, past)
    return sum_rectangles((mask >= 0).int(), mask.clamp(min=0), first, past, (num_masks, *size)) > 0


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
    image = part_indices(boxes)
    every, shown = torch.cat(list(boxes)), torch.cat(list(on_level))
    ignored = torch.cat(list(ignore))
    levels = []
    for level, (stride, size) in enumerate(zip(strides, sizes)):
        # N masks of the shown faces, then N masks of the ignored faces.
        mask = torch.where(ignored, image + len(boxes), torch.where(shown[:, level], image, -1))
        faces, covered = box_masks(every, mask, 2 * len(boxes), stride, size).chunk(2)
        levels.append((faces.float(), (faces | ~covered).float()))
    return levels
