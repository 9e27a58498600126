"""Assignment of receptive fields to faces, and box targets.

A receptive field (RF) is positive if its center is inside exactly one face whose size is in the
range of the branch. It is ignored if its center is inside two such faces, or inside a face whose
size is in the gray zone around the range. Source: arXiv 1904.10633, section 3.4; borders and ties
are handled as in the released code.

Letters: N images of a batch, M faces of all of them, (h, w) the map of a branch, P its positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from face_d2.utils.choices import check_choice
from lffd_d2.receptive_field import Branch

__all__ = [
    "BranchLabels",
    "decode_boxes",
    "face_sizes",
    "faces_in_range",
    "label_branch",
    "label_branches",
    "positives_per_face",
]

SCALE_MEASURES = ("longer", "shorter", "sqrt_area")


@dataclass(frozen=True)
class BranchLabels:
    """Targets of one branch for a batch.

    Attributes:
        positive: (N, h, w) bool, positive RFs.
        negative: (N, h, w) bool, negative RFs. The others are ignored.
        box_cells: (P, 3) int64 indices (image, row, column) of the RFs with a box target. As in the
            released code, these are all RFs in exactly one face of the range, even if a gray face
            covers them and their score is ignored.
        box_targets: (P, 4) float32, (center - corner) / divisor for x1, y1, x2, y2.
    """

    positive: Tensor
    negative: Tensor
    box_cells: Tensor
    box_targets: Tensor


def face_sizes(boxes: Tensor, measure: str) -> Tensor:
    """Size of faces in pixels.

    Args:
        boxes: (M, 4) XYXY.
        measure: "longer" side, "shorter" side or "sqrt_area".

    Returns:
        (M,) sizes.
    """
    check_choice("MODEL.LFFD.SCALE_MEASURE", measure, SCALE_MEASURES)
    sides = boxes[:, 2:] - boxes[:, :2]
    if measure == "longer":
        return sides.amax(dim=1)
    if measure == "shorter":
        return sides.amin(dim=1)
    return sides.prod(dim=1).sqrt()


@torch.no_grad()
def label_branch(
    branch: Branch,
    map_size: tuple[int, int],
    boxes: Sequence[Tensor],
    ignore: Sequence[Tensor],
    *,
    reg_norm: str,
    scale_measure: str,
    min_face: float,
) -> BranchLabels:
    """Labels one branch for a batch. Time and memory are linear in faces plus map cells.

    Boxes may extend beyond the image; their size is that of the whole box. Each face covers a
    rectangle of RFs, which is added as differences at its four corners, followed by one cumulative
    sum for all faces. The sum counts the faces at every RF and adds up their indices: where the
    count is one, the sum of the indices is the index of the face.

    Args:
        branch: the branch.
        map_size: (h, w) of its map.
        boxes: per image, (M_i, 4) XYXY in pixels of the input.
        ignore: per image, (M_i,) bool, faces that every branch ignores.
        reg_norm: ``MODEL.LFFD.REG_NORM``.
        scale_measure: ``MODEL.LFFD.SCALE_MEASURE``.
        min_face: faces smaller than this are ignored on every branch.

    Returns:
        The labels, on the device of ``boxes``.
    """
    (labels,) = label_branches(
        [branch],
        [map_size],
        boxes,
        ignore,
        reg_norm=reg_norm,
        scale_measure=scale_measure,
        min_face=min_face,
    )
    return labels


@torch.no_grad()
def label_branches(
    branches: Sequence[Branch],
    map_sizes: Sequence[tuple[int, int]],
    boxes: Sequence[Tensor],
    ignore: Sequence[Tensor],
    *,
    reg_norm: str,
    scale_measure: str,
    min_face: float,
) -> list[BranchLabels]:
    """:func:`label_branch` for several branches.

    The host waits for the GPU twice, for any number of branches, because the cells with box targets
    of all branches are found together.

    Args:
        branches: the branches.
        map_sizes: (h, w) of the map of each.
        boxes, ignore, reg_norm, scale_measure, min_face: see :func:`label_branch`.

    Returns:
        The labels of each branch.
    """
    painted = [
        _paint_faces(branch, map_size, boxes, ignore, scale_measure, min_face)
        for branch, map_size in zip(branches, map_sizes)
    ]
    single = [p.green == 1 for p in painted]
    labels = []
    for branch, faces, mask, cells in zip(branches, painted, single, _true_cells(single)):
        image, row, column = cells.unbind(1)
        owner = faces.boxes[faces.face[image, row, column]]  # (P, 4)
        position = torch.stack([column, row, column, row], dim=1).double()
        centers = branch.rf.start + branch.rf.stride * position
        covered = faces.gray > 0
        labels.append(
            BranchLabels(
                positive=mask & ~covered,
                negative=(faces.green == 0) & ~covered,
                box_cells=cells,
                box_targets=((centers - owner) / branch.divisor(reg_norm)).float(),
            )
        )
    return labels


@torch.no_grad()
def positives_per_face(
    branch: Branch,
    map_size: tuple[int, int],
    boxes: Tensor,
    ignore: Tensor,
    *,
    scale_measure: str,
    min_face: float,
) -> Tensor:
    """Counts the positive RFs of each face of one image on a branch.

    Args:
        branch, map_size, scale_measure, min_face: see :func:`label_branch`.
        boxes: (M, 4) XYXY in pixels of the input.
        ignore: (M,) bool.

    Returns:
        (M,) int64.
    """
    painted = _paint_faces(branch, map_size, [boxes], [ignore], scale_measure, min_face)
    positive = (painted.green == 1) & (painted.gray == 0)
    return torch.bincount(painted.face[positive], minlength=len(boxes))


def faces_in_range(
    branch: Branch, boxes: Tensor, ignore: Tensor, *, scale_measure: str, min_face: float
) -> tuple[Tensor, Tensor]:
    """The faces that a branch detects, and those that it ignores, by their size.

    Args:
        branch, scale_measure, min_face: see :func:`label_branch`.
        boxes: (M, 4) XYXY in pixels of the input.
        ignore: (M,) bool.

    Returns:
        (M,) bool faces in the range ("green"), (M,) bool ignored faces ("gray"). A face may be
        neither.
    """
    size = face_sizes(boxes, scale_measure)
    out = ignore | (size < min_face)
    green = ~out & _within(size, branch.face_range)
    return green, out | (~green & _within(size, branch.gray_range))


def decode_boxes(
    branch: Branch, offsets: Tensor, rows: Tensor, columns: Tensor, *, reg_norm: str
) -> Tensor:
    """The inverse of the box targets.

    Args:
        branch: the branch.
        offsets: (P, 4) predictions.
        rows: (P,) rows of their RFs on the map.
        columns: (P,) columns.
        reg_norm: ``MODEL.LFFD.REG_NORM``.

    Returns:
        (P, 4) XYXY in input pixels, not clipped.
    """
    cells = torch.stack([columns, rows, columns, rows], dim=1).to(offsets.dtype)
    centers = branch.rf.start + branch.rf.stride * cells
    return centers - offsets * branch.divisor(reg_norm)


@dataclass(frozen=True)
class _Painted:
    """The faces at every RF of a branch, for a batch.

    Attributes:
        boxes: (M, 4) float64, all faces.
        gray, green: (N, h, w) int64, number of ignored faces, and of faces in the range, around the
            RF.
        face: (N, h, w) int64, sum of the indices of the green faces; with one face, its index.
    """

    boxes: Tensor
    gray: Tensor
    green: Tensor
    face: Tensor


def _paint_faces(
    branch: Branch,
    map_size: tuple[int, int],
    boxes: Sequence[Tensor],
    ignore: Sequence[Tensor],
    scale_measure: str,
    min_face: float,
) -> _Painted:
    """Counts the faces at every RF center; the arguments are those of :func:`label_branch`."""
    image = torch.cat(
        [torch.full((len(b),), i, dtype=torch.int64, device=b.device) for i, b in enumerate(boxes)]
    )
    box = torch.cat(list(boxes)).to(torch.float64)
    green, gray = faces_in_range(
        branch, box, torch.cat(list(ignore)), scale_measure=scale_measure, min_face=min_face
    )
    height, width = map_size
    first = ((box[:, :2] - branch.rf.start) / branch.rf.stride).ceil().clamp(min=0)  # (M, 2) x, y
    last = ((box[:, 2:] - branch.rf.start) / branch.rf.stride).floor()
    last = torch.stack([last[:, 0].clamp(max=width - 1), last[:, 1].clamp(max=height - 1)], dim=1)
    has_center = (last >= first).all(dim=1)
    # Faces without an RF center are added too, with weight 0 on a valid rectangle. Removing them
    # would make the host wait for the GPU.
    first = torch.where(has_center[:, None], first, 0).to(torch.int64)
    last = torch.where(has_center[:, None], last, 0).to(torch.int64)
    green, gray = green & has_center, gray & has_center
    index = torch.arange(len(box), device=box.device)
    weights = torch.stack([gray.long(), green.long(), green * index])  # (3, M)
    painted = _paint(weights, image, first, last, (len(boxes), height, width))
    return _Painted(box, *painted)


def _true_cells(masks: Sequence[Tensor]) -> list[Tensor]:
    """Per mask (N, h, w), the (P, 3) indices of its True cells, as ``mask.nonzero()``."""
    found = torch.cat([mask.flatten() for mask in masks]).nonzero().squeeze(1)
    counts = torch.stack([mask.sum() for mask in masks]).tolist()
    cells = []
    start = 0
    for mask, flat in zip(masks, found.split(counts)):
        _, height, width = mask.shape
        flat = flat - start
        start += mask.numel()
        row = flat // width
        cells.append(torch.stack([row // height, row % height, flat % width], dim=1))
    return cells


def _within(size: Tensor, bounds: tuple[float, float]) -> Tensor:
    return (size >= bounds[0]) & (size <= bounds[1])


def _paint(
    weights: Tensor, image: Tensor, first: Tensor, last: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """Sums rectangles.

    Args:
        weights: (K, M) int64, the value that each rectangle adds to each of K layers.
        image: (M,) the image of each rectangle.
        first: (M, 2) its first column and row.
        last: (M, 2) its last column and row, included.
        shape: (N, h, w).

    Returns:
        (K, N, h, w) int64.
    """
    count, height, width = shape
    # One additional row and column for the differences beyond the border.
    differences = weights.new_zeros(len(weights), count * (height + 1) * (width + 1))
    (left, top), (right, bottom) = first.unbind(1), (last + 1).unbind(1)
    for row, column, sign in (
        (top, left, 1),
        (top, right, -1),
        (bottom, left, -1),
        (bottom, right, 1),
    ):
        cell = (image * (height + 1) + row) * (width + 1) + column
        differences.index_add_(1, cell, weights * sign)
    painted = differences.view(-1, count, height + 1, width + 1).cumsum(2).cumsum(3)
    return painted[:, :, :height, :width]
