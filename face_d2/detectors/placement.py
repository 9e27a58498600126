"""Maps images to the input of a network and boxes back to the image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Placement", "fit_inside", "pad_to_multiple", "stretch"]


@dataclass(frozen=True)
class Placement:
    """Position of an image in the input of a network (the canvas).

    Attributes:
        scale: canvas pixels per image pixel, along x and y.
        offset: canvas position (x, y) of the image's upper left corner.
        size: (height, width) of the image in its own pixels.
    """

    scale: tuple[float, float]
    offset: tuple[int, int]
    size: tuple[int, int]

    def to_image(self, boxes: NDArray[np.floating], clip: bool = False) -> NDArray[np.float32]:
        """Maps (N, 4) XYXY to image pixels; ``clip`` cuts them at the borders of the image."""
        moved = (boxes - np.array(self.offset * 2)) / np.array(self.scale * 2)
        if clip:
            moved = moved.clip(0, np.array([self.size[1], self.size[0]] * 2))
        return moved.astype(np.float32)


def pad_to_multiple(
    image: NDArray[np.uint8], multiple: int, value: int = 0
) -> tuple[NDArray[np.uint8], Placement]:
    """Pads the image on the right and bottom to sides that are multiples of a number."""
    height, width = image.shape[:2]
    rows, columns = (math.ceil(side / multiple) * multiple for side in (height, width))
    placement = Placement((1.0, 1.0), (0, 0), (height, width))
    return _on_canvas(image, (rows, columns), (0, 0), value), placement


def fit_inside(
    image: NDArray[np.uint8], canvas: tuple[int, int], *, value: int = 0, centered: bool = False
) -> tuple[NDArray[np.uint8], Placement]:
    """Scales the image to the largest size that fits into a canvas, and pads it to the canvas.

    Args:
        image: (H, W, 3).
        canvas: (height, width) in pixels.
        value: value of the padding.
        centered: place the image in the middle instead of the upper left corner.
    """
    height, width = image.shape[:2]
    scale = min(canvas[0] / height, canvas[1] / width)
    rows, columns = (max(round(side * scale), 1) for side in (height, width))
    if (rows, columns) != (height, width):
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
    top, left = ((canvas[0] - rows) // 2, (canvas[1] - columns) // 2) if centered else (0, 0)
    placement = Placement((columns / width, rows / height), (left, top), (height, width))
    return _on_canvas(image, canvas, (top, left), value), placement


def stretch(
    image: NDArray[np.uint8], canvas: tuple[int, int]
) -> tuple[NDArray[np.uint8], Placement]:
    """Scales the image to a canvas (height, width) without keeping its aspect ratio."""
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
