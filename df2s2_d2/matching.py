"""Matching of anchors to faces.

A crowd has thousands of faces and an image has hundreds of thousands of anchors, so the full IoU
matrix is never computed. Anchors are on a grid: for a face and an anchor shape, only the anchors in
a small window of cells can reach a given IoU, and the window follows from the side lengths. Time
and memory are linear in the number of faces.

Whenever the host reads a result, it waits for the GPU. A batch of up to 524,288 pairs needs four
such reads, for any number of images and levels; tests count them.

Letters: M = faces, R = anchors of all levels, S = anchor shapes (levels x A), P = pairs of a face
and an anchor that reach the lowest IoU of interest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from df2s2_d2.anchors import AnchorGrid
from face_d2.modeling.rectangles import part_indices, part_starts

__all__ = ["AnchorLabels", "FaceAnchorMatcher"]

# At most this many face-anchor pairs are compared at a time, which limits the memory.
_PAIRS_AT_A_TIME = 1 << 19


@dataclass(frozen=True)
class AnchorLabels:
    """The result of the matcher for one image.

    Attributes:
        labels: (R,) int8: 1 face, 0 background, -1 ignored.
        faces: (R,) int64: index of the face of a positive anchor, 0 elsewhere.
        forced: (R,) bool: positive anchors below the positive threshold (low-quality matches).
        on_level: (M, L) bool: levels on which a face has a positive anchor. If it has none, the
            level with the best-fitting shape. All False for ignored faces.
        ignore: (M,) bool: the ignored faces, which are neither positive nor background: those that
            the caller marked, and those that are too small.
    """

    labels: Tensor
    faces: Tensor
    forced: Tensor
    on_level: Tensor
    ignore: Tensor


class FaceAnchorMatcher:
    """Labels anchors by their IoU with faces.

    An anchor is matched to the face with the highest IoU (the first one if several are equal). It
    is positive if the IoU is at least the upper threshold, background if the IoU is below the lower
    threshold, and ignored otherwise. Anchors whose IoU with an ignored face reaches the lower
    threshold are ignored too, unless they are positive.

    Low-quality matches: a face without a positive anchor gets the ``low_quality_topk`` anchors with
    the highest IoU, if it is at least ``low_quality_min_iou``. Anchors that are positive for
    another face are excluded, and anchors with the same IoU as the last one are included. If two
    such faces compete for an anchor, the face with the higher IoU gets it.

    Args:
        iou_thresholds: (lower, upper); if both are equal, no anchor is ignored.
        low_quality_min_iou: minimum IoU of low-quality matches, in (0, 1]; 1 turns them off.
        low_quality_topk: number of anchors for a face without a positive anchor, at least 1. This
            is the second stage of S3FD (arXiv 1708.05237, 3.2) with a fixed number.
        min_face: faces whose longer side is below this number of pixels are ignored. To find the
            anchors around them, they are enlarged to the sides of the smallest anchor, because
            their own IoU with every anchor can be below the lower threshold. 0 ignores no face.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        iou_thresholds: Sequence[float],
        low_quality_min_iou: float,
        low_quality_topk: int = 1,
        min_face: float = 0.0,
    ) -> None:
        low, high = iou_thresholds
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"MODEL.DF2S2.IOU_THRESHOLDS is {list(iou_thresholds)}; expected "
                "0 < background <= positive <= 1."
            )
        if not 0 < low_quality_min_iou <= 1:
            raise ValueError(
                f"MODEL.DF2S2.LOW_QUALITY_MIN_IOU is {low_quality_min_iou}; expected (0, 1] "
                "(1 forces no match)."
            )
        if low_quality_topk < 1:
            raise ValueError(
                f"MODEL.DF2S2.LOW_QUALITY_TOPK is {low_quality_topk}; expected at least 1 "
                "(LOW_QUALITY_MIN_IOU 1 forces no match)."
            )
        if not 0 <= min_face < math.inf:
            raise ValueError(
                f"MODEL.DF2S2.MIN_FACE is {min_face}; expected pixels, at least 0 (0: no face is "
                "ignored)."
            )
        self.background_below, self.positive_from = low, high
        self.low_quality_min_iou = low_quality_min_iou
        self.low_quality_topk = low_quality_topk
        self.min_face = min_face

    def __call__(self, grid: AnchorGrid, boxes: Tensor, ignore: Tensor) -> AnchorLabels:
        """Labels the anchors of one image; see :meth:`label_batch`."""
        return self.label_batch(grid, [boxes], [ignore])[0]

    @torch.no_grad()
    def label_batch(
        self, grid: AnchorGrid, boxes: Sequence[Tensor], ignore: Sequence[Tensor]
    ) -> list[AnchorLabels]:
        """Labels the anchors of N images at once; one call per image would leave the GPU idle.

        Args:
            grid: the anchors of an image; the same for all.
            boxes: per image (M, 4) XYXY faces, with positive sides.
            ignore: per image (M,) ignored faces.
        """
        counts = [len(faces) for faces in boxes]
        image = part_indices(boxes)
        found = self._label(grid, torch.cat(list(boxes)), torch.cat(list(ignore)), image, counts)
        labels, faces, forced = (
            rows.view(len(counts), -1) for rows in (found.labels, found.faces, found.forced)
        )
        # Anchors without a face have face index 0 in every image.
        faces = (faces - part_starts(boxes)[:, None]).clamp_(min=0)
        on_level, ignored = found.on_level.split(counts), found.ignore.split(counts)
        return [AnchorLabels(*parts) for parts in zip(labels, faces, forced, on_level, ignored)]

    def _label(
        self,
        grid: AnchorGrid,
        boxes: Tensor,
        ignore: Tensor,
        image: Tensor,
        counts: Sequence[int],
    ) -> AnchorLabels:
        """Labels the N R anchors of all images; ``image`` (M,) is the image of each face."""
        num_faces, num_levels = len(boxes), grid.num_levels
        num_anchors = len(counts) * len(grid.boxes)
        labels = boxes.new_zeros(num_anchors, dtype=torch.int8)
        faces = boxes.new_zeros(num_anchors, dtype=torch.int64)
        if num_faces == 0:
            on_level = boxes.new_zeros(0, num_levels, dtype=torch.bool)
            return AnchorLabels(labels, faces, labels > 0, on_level, ignore)
        if self.min_face > 0:
            sizes = boxes[:, 2:] - boxes[:, :2]
            small = sizes.amax(dim=1) < self.min_face
            ignore = ignore | small
            centers = (boxes[:, :2] + boxes[:, 2:]) / 2
            half = torch.maximum(sizes, grid.shape_sizes.amin(dim=0)) / 2
            enlarged = torch.cat([centers - half, centers + half], dim=1)
            boxes = torch.where(small[:, None], enlarged, boxes)

        lowest = min(self.background_below, self.low_quality_min_iou)
        face, cell, iou = _pairs(grid, boxes, lowest)  # each (P,)
        anchor = cell + image[face] * len(grid.boxes)
        pair_level = face * num_levels + grid.levels[cell]  # index into (M, L), flat
        owned = torch.zeros(num_faces * num_levels, dtype=torch.int64, device=boxes.device)
        not_ignored = ~ignore[face]

        best_ignored, _ = _best_per(anchor, iou.masked_fill(not_ignored, 0), face, num_anchors)
        iou = iou.masked_fill(~not_ignored, 0)
        best, owner = _best_per(anchor, iou, face, num_anchors)
        positive = best >= self.positive_from
        labels.masked_fill_(torch.maximum(best, best_ignored) >= self.background_below, -1)
        labels.masked_fill_(positive, 1)
        faces = torch.where(positive, owner, faces)

        won = positive[anchor] & (owner[anchor] == face)
        owned.index_add_(0, pair_level, won.long())
        unmatched = owned.view(num_faces, num_levels).sum(dim=1) == 0
        available = unmatched[face] & ~positive[anchor] & (iou >= self.low_quality_min_iou)
        (available,) = available.nonzero(as_tuple=True)
        face, anchor, iou = face[available], anchor[available], iou[available]
        wanted = iou >= _nth_largest(face, iou, self.low_quality_topk, num_faces)[face]
        best, owner = _best_per(anchor, iou.masked_fill(~wanted, 0), face, num_anchors)
        forced = best > 0
        labels.masked_fill_(forced, 1)
        faces = torch.where(forced, owner, faces)

        won = wanted & (owner[anchor] == face)
        owned.index_add_(0, pair_level[available], won.long())
        on_level = owned.view(num_faces, num_levels) > 0
        unmatched = ~on_level.any(dim=1, keepdim=True)
        levels = torch.arange(num_levels, device=boxes.device)
        on_level |= unmatched & (_fitting_level(grid, boxes)[:, None] == levels)
        on_level &= ~ignore[:, None]
        return AnchorLabels(labels, faces, forced, on_level, ignore)


def _pairs(grid: AnchorGrid, boxes: Tensor, min_iou: float) -> tuple[Tensor, Tensor, Tensor]:
    """All (face, anchor, IoU) with IoU >= ``min_iou``; faces ascend within every anchor's pairs."""
    none = torch.empty(0, dtype=torch.int64, device=boxes.device)
    found = [(none, none, boxes.new_empty(0))]
    for face, anchor in _windows(grid, boxes, min_iou):
        found.append(_compare(grid, boxes, face, anchor, min_iou))
    face, anchor, iou = (torch.cat(parts) for parts in zip(*found))
    return face, anchor, iou


def _windows(grid: AnchorGrid, boxes: Tensor, min_iou: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of (face, anchor) index pairs that include every pair with an IoU of ``min_iou``."""
    sizes = boxes[:, 2:] - boxes[:, :2]  # (M, 2)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    # An IoU of t needs an intersection of t / (1 + t) times the sum of the areas. Its height is at
    # most the smaller of the two heights, so its width has a minimum, which bounds the distance of
    # the centers in x. The same holds for y.
    areas = sizes.prod(1).view(-1, 1) + grid.shape_sizes.prod(1).view(1, -1)  # (M, S)
    needed = min_iou / (1 + min_iou) * areas
    smaller = torch.minimum(sizes[:, None], grid.shape_sizes[None])  # (M, S, 2)
    reach = (sizes[:, None] + grid.shape_sizes[None]) / 2 - needed[..., None] / smaller.flip(-1)
    reach = reach + 1e-3  # no pair is lost by rounding; the exact IoU decides later
    offset = centers[:, None] - grid.shape_centers[None]
    stride = grid.strides.view(1, -1, 1)
    low = torch.ceil((offset - reach) / stride).long().clamp(min=0)
    high = torch.minimum(torch.floor((offset + reach) / stride).long(), grid.cells[None] - 1)
    extent = (high - low + 1).clamp(min=0)  # (M, S, 2) columns and rows
    # Even concentric boxes do not reach the IoU.
    extent.masked_fill_((needed > smaller.prod(-1) * (1 + 1e-5))[..., None], 0)

    face, shape = extent.prod(-1).nonzero(as_tuple=True)  # windows that are not empty
    low, extent = low[face, shape], extent[face, shape]
    counts = extent.prod(-1)
    pairs = np.array(counts.tolist(), dtype=np.int64)
    blocks = np.bincount((pairs.cumsum() - 1) // _PAIRS_AT_A_TIME)
    ends = blocks.cumsum()
    for first, end in zip(ends - blocks, ends):
        total = int(pairs[first:end].sum())
        count = counts[first:end]
        within = torch.arange(first, end, device=boxes.device)
        window = torch.repeat_interleave(within, count, output_size=total)
        step = torch.arange(total, device=boxes.device)
        step -= torch.repeat_interleave(count.cumsum(0) - count, count, output_size=total)
        columns = extent[window, 0]
        x = low[window, 0] + step % columns
        y = low[window, 1] + torch.div(step, columns, rounding_mode="floor")
        kind = shape[window]
        cell = y * grid.cells[kind, 0] + x
        yield face[window], grid.first[kind] + cell * grid.per_cell[kind]


def _compare(
    grid: AnchorGrid, boxes: Tensor, face: Tensor, anchor: Tensor, min_iou: float
) -> tuple[Tensor, Tensor, Tensor]:
    a, b = boxes[face], grid.boxes[anchor]
    overlap = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    intersection = overlap.clamp(min=0).prod(1)
    area_a = (a[:, 2:] - a[:, :2]).prod(1)
    area_b = (b[:, 2:] - b[:, :2]).prod(1)
    iou = intersection / (area_a + area_b - intersection)
    (kept,) = (iou >= min_iou).nonzero(as_tuple=True)
    return face[kept], anchor[kept], iou[kept]


def _best_per(group: Tensor, value: Tensor, item: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """For each group, the largest value (at least 0) and the smallest item with this value."""
    best = torch.zeros(size, dtype=value.dtype, device=value.device)
    best.scatter_reduce_(0, group, value, "amax")
    none = torch.iinfo(torch.int64).max
    owner = torch.full((size,), none, device=value.device)
    owner.scatter_reduce_(0, group, item.masked_fill(value != best[group], none), "amin")
    return best, owner


def _nth_largest(group: Tensor, value: Tensor, n: int, size: int) -> Tensor:
    """(size,) per group its ``n``-th largest value in [0, 1]; if there are fewer, the smallest; 0
    for an empty group."""
    # One sort orders by group, then by falling value; float64 holds both exactly.
    order = (2 * group.double() - value.double()).argsort()
    count = torch.zeros(size, dtype=torch.int64, device=group.device)
    count.index_add_(0, group, torch.ones_like(group))
    first = count.cumsum(0) - count
    at = first + (count - 1).clamp(0, n - 1)
    # Empty groups behind the last one point past the end.
    ordered = torch.cat([value[order], value.new_zeros(1)])
    return ordered[at.clamp(max=len(value))].masked_fill(count == 0, 0)


def _fitting_level(grid: AnchorGrid, boxes: Tensor) -> Tensor:
    """(M,) level of the shape that has the largest IoU with each box when concentric."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    common = torch.minimum(sizes[:, None], grid.shape_sizes[None]).prod(-1)  # (M, S)
    union = sizes.prod(1)[:, None] + grid.shape_sizes.prod(1)[None] - common
    return grid.shape_levels[(common / union).argmax(dim=1)]
