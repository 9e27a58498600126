"""The grid of anchors of all levels, and a cache of grids.

Letters: R = anchors of all levels, S = anchor shapes (levels x A).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor

from face_d2.modeling.rectangles import part_indices

__all__ = ["AnchorGrid", "AnchorGridCache", "check_anchors", "decode_maps", "lay_anchors"]


@dataclass(frozen=True)
class AnchorGrid:
    """Anchors of all levels as shapes on grids, in the order of Detectron2's anchor generator.

    Anchor ``((y * width + x) * A + a)`` of a level has shape a in cell (x, y). The anchors of a
    level follow those of the previous level.

    Attributes:
        boxes: (R, 4) all anchors, XYXY pixels.
        levels: (R,) the level of every anchor.
        shape_sizes: (S, 2) width and height of every shape.
        shape_centers: (S, 2) x, y of the shape's first center.
        shape_levels: (S,) the level of every shape.
        strides: (S,) pixels between neighboring cells.
        cells: (S, 2) columns and rows of the grid.
        first: (S,) index of the shape's anchor in cell (0, 0).
        per_cell: (S,) anchors per cell of the level.
        num_levels: L.
    """

    boxes: Tensor
    levels: Tensor
    shape_sizes: Tensor
    shape_centers: Tensor
    shape_levels: Tensor
    strides: Tensor
    cells: Tensor
    first: Tensor
    per_cell: Tensor
    num_levels: int

    @staticmethod
    def build(
        cell_anchors: Sequence[Tensor],
        strides: Sequence[int],
        offset: float,
        sizes: Sequence[tuple[int, int]],
    ) -> AnchorGrid:
        """Places the anchor shapes in all cells; the arguments are those of :func:`lay_anchors`,
        per level."""
        boxes, centers, rows = [], [], []
        first = 0
        for level, (shapes, stride, size) in enumerate(zip(cell_anchors, strides, sizes)):
            boxes.append(lay_anchors(shapes, stride, offset, size))
            centers.append((shapes[:, :2] + shapes[:, 2:]) / 2 + offset * stride)
            for a in range(len(shapes)):
                rows.append((level, stride, *size[::-1], first + a, len(shapes)))
            first += len(boxes[-1])
        table = torch.tensor(rows, dtype=torch.int64, device=cell_anchors[0].device)
        every = torch.cat(list(cell_anchors))
        return AnchorGrid(
            boxes=torch.cat(boxes),
            levels=part_indices(boxes),
            shape_sizes=every[:, 2:] - every[:, :2],
            shape_centers=torch.cat(centers),
            shape_levels=table[:, 0],
            strides=table[:, 1],
            cells=table[:, 2:4],
            first=table[:, 4],
            per_cell=table[:, 5],
            num_levels=len(sizes),
        )


class AnchorGridCache:
    """Builds a grid once per image size, and keeps the ``keep`` grids that were used last.

    A grid belongs to the shape tensors from which it was built. After a model is moved to another
    device or precision, its shape tensors are new, so new grids are built. Grids are not kept while
    tracing. Grids from PyTorch's inference mode cannot be used in training, so they are kept
    separately.
    """

    def __init__(self, keep: int = 4) -> None:
        self._keep = keep
        self._build = lru_cache(maxsize=keep)(lambda inference, *key: AnchorGrid.build(*key))

    def __call__(
        self,
        cell_anchors: Sequence[Tensor],
        strides: Sequence[int],
        offset: float,
        sizes: Sequence[tuple[int, int]],
    ) -> AnchorGrid:
        """The result of :meth:`AnchorGrid.build` for the same arguments."""
        # Under torch.export, the shapes are placeholders of another type without values.
        if torch.jit.is_tracing() or any(type(shapes) is not Tensor for shapes in cell_anchors):
            return AnchorGrid.build(cell_anchors, strides, offset, sizes)
        # A tensor is hashed by identity, and the key keeps it alive.
        key = (tuple(cell_anchors), tuple(strides), offset, tuple(sizes))
        return self._build(torch.is_inference_mode_enabled(), *key)

    def __reduce__(self) -> tuple[type, tuple[int]]:
        # Copies of a model, in memory or in a file, start with an empty cache.
        return AnchorGridCache, (self._keep,)


def check_anchors(cell_anchors: Iterable[Tensor], transform: Box2BoxTransform) -> None:
    """Checks the anchor shapes of all levels and the transform from anchors to boxes.

    Raises:
        ValueError: anchors are rotated or have no area, or a weight is not positive.
    """
    for shapes in cell_anchors:
        if shapes.shape[1] != 4:
            raise ValueError(
                "MODEL.ANCHOR_GENERATOR.NAME gives rotated anchors; expected upright ones, "
                '"DefaultAnchorGenerator".'
            )
        if not (shapes[:, 2:] > shapes[:, :2]).all():
            sides = (shapes[:, 2:] - shapes[:, :2]).tolist()
            raise ValueError(
                f"MODEL.ANCHOR_GENERATOR gives anchors of (width, height) {sides}; expected SIZES "
                "and ASPECT_RATIOS above 0."
            )
    weights = transform.weights
    if len(weights) != 4 or min(weights) <= 0:
        raise ValueError(
            f"MODEL.DF2S2.BBOX_REG_WEIGHTS is {weights}; expected four numbers above 0."
        )


def lay_anchors(shapes: Tensor, stride: int, offset: float, size: tuple[int, int]) -> Tensor:
    """(rows columns A, 4) XYXY anchors of one level, ordered by row, column and shape.

    It also works while tracing, when the size of the map is symbolic.

    Args:
        shapes: (A, 4) XYXY, centered at the origin.
        stride: pixels between neighboring cells.
        offset: position of the first center, in strides.
        size: (rows, columns) of the feature map.
    """
    centers = _centers(shapes, stride, offset, size).permute(1, 2, 0).repeat(1, 1, 2)
    return (centers[:, :, None] + shapes).reshape(-1, 4)


def decode_maps(
    deltas: Tensor, shapes: Tensor, stride: int, offset: float, transform: Box2BoxTransform
) -> Tensor:
    """(N, rows columns A, 4) XYXY boxes of one level, as ``transform.apply_deltas`` computes them.

    Anchors of one shape differ only in their centers, so that whole maps are computed at once. In
    an exported network this is several times as fast as a computation row by row. It also works
    while tracing.

    Args:
        deltas: (N, 4A, rows, columns), the output of the head.
        shapes, stride, offset: see :func:`lay_anchors`, which also gives the order.
    """
    images, _, rows, columns = deltas.shape
    weights = deltas.new_tensor(transform.weights).view(4, 1, 1)
    moves = deltas.reshape(images, len(shapes), 4, rows, columns) / weights
    sizes = (shapes[:, 2:] - shapes[:, :2]).view(-1, 2, 1, 1)
    middles = (shapes[:, 2:] + shapes[:, :2]).view(-1, 2, 1, 1) / 2
    centers = moves[:, :, :2] * sizes + middles + _centers(shapes, stride, offset, (rows, columns))
    halves = moves[:, :, 2:].clamp(max=transform.scale_clamp).exp() * (sizes / 2)
    boxes = torch.cat((centers - halves, centers + halves), dim=2)  # (N, A, 4, rows, columns)
    return boxes.reshape(images, 4 * len(shapes), -1).transpose(1, 2).reshape(images, -1, 4)


def _centers(shapes: Tensor, stride: int, offset: float, size: tuple[int, int]) -> Tensor:
    """(2, rows, columns) x and y of the centers of all cells."""
    y, x = (
        (torch.arange(side, device=shapes.device, dtype=torch.float32) + offset) * stride
        for side in size
    )
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((xx, yy))
