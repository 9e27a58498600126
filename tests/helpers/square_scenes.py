"""Pictures of bright squares on black, and a detector that finds exactly what it is shown of them.

A square cut by the border of what the detector sees is found as the piece that is left, which is
the worst a real detector does to a cut face.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from references.box_merging_reference import iou
from scipy import ndimage

Square = tuple[int, int, int]  # left, top, side


def draw(height: int, width: int, squares: Sequence[Square]) -> NDArray[np.uint8]:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for left, top, side in squares:
        image[top : top + side, left : left + side] = 255
    return image


def boxes_of(squares: Sequence[Square]) -> NDArray[np.float64]:
    return np.array([(x, y, x + s, y + s) for x, y, s in squares], dtype=float).reshape(-1, 4)


class SquareDetector:
    """Called like a detector of ``face_d2.ops.tiling``.

    Args:
        shortest, longest: sides of the squares it can see, in pixels of what it is shown.
        sloppiness: each end of a box is off by up to this share of the side, differently for
            every call.
    """

    def __init__(
        self, shortest: float = 2, longest: float = np.inf, sloppiness: float = 0.0
    ) -> None:
        self.shortest, self.longest, self.sloppiness = shortest, longest, sloppiness
        self.pixels_seen: list[int] = []

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        self.pixels_seen.append(image.shape[0] * image.shape[1])
        labels, _ = ndimage.label(image[..., 0] >= 128, structure=np.ones((3, 3)))
        noise = np.random.default_rng(zlib.crc32(np.ascontiguousarray(image)))
        rows = []
        for part in ndimage.find_objects(labels):
            box = np.array(
                [part[1].start, part[0].start, part[1].stop, part[0].stop], dtype=np.float64
            )
            side = (box[2:] - box[:2]).max()
            if self.shortest <= side <= self.longest:
                box += self.sloppiness * side * noise.uniform(-1, 1, 4)
                rows.append([*box, noise.uniform(0.3, 0.9)])
        return np.reshape(rows, (-1, 5))


def assert_each_found_once(
    rows: NDArray[np.floating], squares: Sequence[Square], least_iou: float
) -> None:
    """Every square has one detection of its own, and there is no other detection."""
    assert len(rows) == len(squares), (rows, squares)
    for box in boxes_of(squares).tolist():
        fits = [row for row in rows.tolist() if iou(row, box) >= least_iou]
        assert len(fits) == 1, (box, rows)
