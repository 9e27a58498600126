"""The segmentation branch's targets and loss (design note DF2S2, 3.2 and 3.4).

Every level has one mask of face boxes, of the faces that the level detects, so that both branches
look at the same scales. A pixel stands for the centre of its cell, where the anchors stand too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor

from face_d2.modeling.reduce import sum_over_processes

__all__ = ["area_levels", "box_mask", "segmentation_loss"]

# A level's mask takes faces whose area is between S^2 / 2 and 2 (1.58 S)^2, S being the side of the
# level's smallest anchor (FAN, arXiv 1711.07246).
_AREA_RANGE = (0.5, 2 * 1.58**2)


def area_levels(boxes: Tensor, base_sizes: Tensor) -> Tensor:
    """(M, L) bool: which levels show a face by its area.

    Args:
        boxes: (M, 4) XYXY.
        base_sizes: (L,) side of every level's smallest anchor, in pixels.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    relative = areas[:, None] / base_sizes[None] ** 2
    return (relative >= _AREA_RANGE[0]) & (relative <= _AREA_RANGE[1])


def box_mask(boxes: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Union of boxes on the grid of a level.

    A cell belongs to a box when its centre does; a box too small to hold a centre takes the cell it
    lies in.

    Args:
        boxes: (M, 4) XYXY pixels of the image.
        stride: of the level; the centre of cell (x, y) is ((x + 0.5) stride, (y + 0.5) stride).
        size: (rows, columns) of the level.

    Returns:
        (rows, columns) bool.
    """
    height, width = size
    limits = torch.tensor([width, height], device=boxes.device)
    first = torch.ceil(boxes[:, :2] / stride - 0.5).long()  # (M, 2) first x, y inside
    past = torch.ceil(boxes[:, 2:] / stride - 0.5).long()
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2 / stride).floor().long()
    small = past <= first
    first = torch.where(small, middle, first).clamp(min=0)
    past = torch.minimum(torch.where(small, middle + 1, past), limits)
    inside = (past > first).all(dim=1)
    (x0, y0), (x1, y1) = first[inside].unbind(1), past[inside].unbind(1)
    # Marking corners and summing twice costs the same for one face and for a crowd.
    corners = torch.zeros(height + 1, width + 1, dtype=torch.int32, device=boxes.device)
    one = torch.ones_like(x0, dtype=torch.int32)
    corners.index_put_((y0, x0), one, accumulate=True)
    corners.index_put_((y1, x1), one, accumulate=True)
    corners.index_put_((y0, x1), -one, accumulate=True)
    corners.index_put_((y1, x0), -one, accumulate=True)
    return corners.cumsum(0).cumsum(1)[:height, :width] > 0


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
        boxes: per image (M, 4) XYXY faces.
        ignore: per image (M,) faces whose pixels take no part unless another face covers them.
        on_level: per image (M, L) bool, the masks that show a face.
        strides: per level.
        reduction: over a level's pixels, "mean" (of the whole batch, over all processes) or "sum"
            (per image).

    Returns:
        Scalar.
    """
    sums, counts = [], []
    for level, (scores, stride) in enumerate(zip(logits, strides)):
        size = scores.shape[-2:]
        targets, counted = _level_masks(boxes, ignore, on_level, level, stride, size)
        sums.append(
            F.binary_cross_entropy_with_logits(
                scores[:, 0].float(), targets, weight=counted, reduction="sum"
            )
        )
        counts.append(counted.sum())
    if reduction == "sum":
        return torch.stack(sums).sum() / len(boxes)
    # Gradients are averaged over processes, so the divisor is a process's share.
    divisors = sum_over_processes(torch.stack(counts)).clamp(min=1) / comm.get_world_size()
    return (torch.stack(sums) / divisors).sum()


@torch.no_grad()
def _level_masks(
    boxes: Sequence[Tensor],
    ignore: Sequence[Tensor],
    on_level: Sequence[Tensor],
    level: int,
    stride: int,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Targets and weights of a level, (N, H, W) float32 each."""
    targets, counted = [], []
    for faces, ignored, shown in zip(boxes, ignore, on_level):
        target = box_mask(faces[shown[:, level]], stride, size)
        targets.append(target)
        counted.append(target | ~box_mask(faces[ignored], stride, size))
    return torch.stack(targets).float(), torch.stack(counted).float()
