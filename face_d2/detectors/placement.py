"""From an image to the canvas that a network sees, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Placement", "fit_inside", "pad_to_multiple", "stretch"]


@dataclass(frozen=True)
class Placement:
    """Where an image lies on a canvas.

    Attributes:
        scale: canvas pixels per image pixel, along x and y.
        offset: canvas position (x, y) of the image's upper left corner.
        size: (height, width) of the image in its own pixels.
    """

    scale: tuple[float, float]
    offset: tuple[int, int]
    size: tuple[int, int]

    def to_image(self, boxes: NDArray[np.floating], clip: bool = False) -> NDArray[np.float32]:
        """(N, 4) XYXY from canvas pixels to image pixels; ``clip`` cuts them at its borders."""
        moved = (boxes - np.array(self.offset * 2)) / np.array(self.scale * 2)
        if clip:
            moved = moved.clip(0, np.array([self.size[1], self.size[0]] * 2))
        return moved.astype(np.float32)


def pad_to_multiple(
    image: NDArray[np.uint8], multiple: int, value: int = 0
) -> tuple[NDArray[np.uint8], Placement]:
    """The image as it is, padded on the right and at the bottom to a multiple of a side."""
    height, width = image.shape[:2]
    rows, columns = (math.ceil(side / multiple) * multiple for side in (height, width))
    return _on_canvas(image, (rows, columns), (0, 0), value), Placement(
        (1.0, 1.0), (0, 0), (height, width)
    )


def fit_inside(
    image: NDArray[np.uint8],
    canvas: tuple[int, int],
    *,
    value: int = 0,
    centered: bool = False,
) -> tuple[NDArray[np.uint8], Placement]:
    """The image, scaled to the largest size that a canvas holds, and padded to the canvas.

    Args:
        image: (H, W, 3).
        canvas: (height, width) in pixels.
        value: of the padding.
        centered: the image lies in the middle, otherwise in the upper left corner.
    """
    height, width = image.shape[:2]
    scale = min(canvas[0] / height, canvas[1] / width)
    rows, columns = (max(round(side * scale), 1) for side in (height, width))
    if (rows, columns) != (height, width):
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
    top, left = ((canvas[0] - rows) // 2, (canvas[1] - columns) // 2) if centered else (0, 0)
    return _on_canvas(image, canvas, (top, left), value), Placement(
        (columns / width, rows / height), (left, top), (height, width)
    )


def stretch(
    image: NDArray[np.uint8], canvas: tuple[int, int]
) -> tuple[NDArray[np.uint8], Placement]:
    """The image scaled to a canvas (height, width) whatever happens to its aspect."""
    height, width = image.shape[:2]
    if canvas != (height, width):
        image = cv2.resize(image, (canvas[1], canvas[0]), interpolation=cv2.INTER_LINEAR)
    return image, Placement((canvas[1] / width, canvas[0] / height), (0, 0), (height, width))


def _on_canvas(
    image: NDArray[np.uint8], canvas: tuple[int, int], corner: tuple[int, int], value: int
) -> NDArray[np.uint8]:
    if image.shape[:2] == canvas:
        return image
    whole = np.full((*canvas, 3), value, np.uint8)
    top, left = corner
    whole[top : top + image.shape[0], left : left + image.shape[1]] = image
    return whole
