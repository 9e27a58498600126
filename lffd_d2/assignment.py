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

from face_d2.modeling.rectangles import part_indices, sum_rectangles
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
    """(M,) sizes of boxes (M, 4) XYXY: the "longer" side, the "shorter" side or "sqrt_area"."""
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
    """:func:`label_branches` for one branch."""
    rules = {"reg_norm": reg_norm, "scale_measure": scale_measure, "min_face": min_face}
    return label_branches([branch], [map_size], boxes, ignore, **rules)[0]


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
    """Labels branches for a batch. Time and memory are linear in faces plus map cells.

    Boxes may extend beyond the image; their size is that of the whole box. Each face covers a
    rectangle of RFs. The faces at every RF are counted, and their indices are added up: where the
    count is one, the sum of the indices is the index of the face. The host waits for the GPU twice,
    for any number of branches, because the cells with box targets of all branches are found
    together.

    Args:
        map_sizes: (h, w) of the map of each branch.
        boxes: per image, (M_i, 4) XYXY in pixels of the input.
        ignore: per image, (M_i,) bool, faces that every branch ignores.
        reg_norm: ``MODEL.LFFD.REG_NORM``.
        scale_measure: ``MODEL.LFFD.SCALE_MEASURE``.
        min_face: faces smaller than this are ignored on every branch.

    Returns:
        The labels of each branch, on the device of ``boxes``.
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
    """(M,) int64: the number of positive RFs of each face of one image on a branch.

    The arguments are those of :func:`label_branch`, ``boxes`` and ``ignore`` of one image.
    """
    painted = _paint_faces(branch, map_size, [boxes], [ignore], scale_measure, min_face)
    positive = (painted.green == 1) & (painted.gray == 0)
    return torch.bincount(painted.face[positive], minlength=len(boxes))


def faces_in_range(
    branch: Branch, boxes: Tensor, ignore: Tensor, *, scale_measure: str, min_face: float
) -> tuple[Tensor, Tensor]:
    """The faces of one image that a branch detects, and those that it ignores, by their size.

    The arguments are those of :func:`label_branch`, ``boxes`` and ``ignore`` of one image.

    Returns:
        (M,) bool faces in the range ("green"), (M,) bool ignored faces ("gray"). A face may be
        neither.
    """
    size = face_sizes(boxes, scale_measure)
    out = ignore | (size < min_face)
    (low, high), (gray_low, gray_high) = branch.face_range, branch.gray_range
    green = ~out & (size >= low) & (size <= high)
    return green, out | (~green & (size >= gray_low) & (size <= gray_high))


def decode_boxes(
    branch: Branch, offsets: Tensor, rows: Tensor, columns: Tensor, *, reg_norm: str
) -> Tensor:
    """The inverse of the box targets: (P, 4) XYXY in input pixels, not clipped.

    Args:
        offsets: (P, 4) predictions.
        rows, columns: (P,) positions of their RFs on the map.
        reg_norm: ``MODEL.LFFD.REG_NORM``.
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
    """Counts the faces at every RF center; the arguments are those of :func:`label_branch`. Nothing
    is removed, because the host would wait for the GPU."""
    box = torch.cat(list(boxes)).to(torch.float64)
    green, gray = faces_in_range(
        branch, box, torch.cat(list(ignore)), scale_measure=scale_measure, min_face=min_face
    )
    first = ((box[:, :2] - branch.rf.start) / branch.rf.stride).ceil()  # (M, 2) x, y
    past = ((box[:, 2:] - branch.rf.start) / branch.rf.stride).floor() + 1
    images, faces = part_indices(boxes), torch.arange(len(box), device=box.device)
    # The three sums are maps 0 to N - 1, N to 2 N - 1, and 2 N to 3 N - 1.
    painted = sum_rectangles(
        torch.cat([gray.long(), green.long(), green * faces]),
        torch.cat([images, images + len(boxes), images + 2 * len(boxes)]),
        first.repeat(3, 1),
        past.repeat(3, 1),
        (3 * len(boxes), *map_size),
    )
    return _Painted(box, *painted.chunk(3))


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
