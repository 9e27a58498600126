"""The resizing of test images without Detectron2: the size rule and the filter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["THIN", "SizeRule", "resize"]

#: An image more than this many times as long as wide is a strip, not a photograph.
THIN = 16


@dataclass(frozen=True)
class SizeRule:
    """At what size an image is searched.

    Attributes:
        min_size: shorter side after resizing, in pixels (``INPUT.MIN_SIZE_TEST``); 0 leaves the
            image as it is.
        max_size: cap on the longer side (``INPUT.MAX_SIZE_TEST``); 0 for none.
        min_side: the network itself enlarges an image whose shorter side is below this; 0 for
            never.
    """

    min_size: int = 0
    max_size: int = 0
    min_side: int = 0

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what is given to the network.

        As by :class:`face_d2.data.augmentation.BoundedResize`: Detectron2's ResizeShortestEdge, but
        a strip is not enlarged, and no side comes to less than a pixel.
        """
        if not self.min_size:
            return height, width
        factor = self.min_size / min(height, width)
        new = [factor * height, factor * width]
        new[int(height > width)] = float(self.min_size) if height != width else new[0]
        if self.max_size and max(new) > self.max_size:
            factor = self.max_size / max(new)
            new = [side * factor for side in new]
        height_to, width_to = (max(int(side + 0.5), 1) for side in new)
        thin = max(height, width) > THIN * min(height, width)
        if thin and max(height_to, width_to) > max(height, width):
            return height, width
        return height_to, width_to

    def searched_pixels(self, height: int, width: int) -> float:
        """Pixels the network works on for an image that was resized to this size."""
        return height * width * max(self.min_side / min(height, width), 1.0) ** 2


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resizes with the triangle filter that widens when shrinking, as Pillow's BILINEAR does.

    Args:
        image: (H, W, C) uint8.
        height, width: the new size in pixels.

    Returns:
        (height, width, C) uint8, within one gray level of Pillow's.
    """
    if width != image.shape[1]:
        image = _resize_rows(image.transpose(1, 0, 2), width).transpose(1, 0, 2)
    if height != image.shape[0]:
        image = _resize_rows(image, height)
    return np.ascontiguousarray(image)


def _resize_rows(image: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    """(H, W, C) to (rows, W, C)."""
    old = image.shape[0]
    scale = old / rows
    support = max(scale, 1.0)
    centres = (np.arange(rows) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + support + 0.5).astype(np.int64), old)
    taps = first[:, None] + np.arange(int((last - first).max()))  # (rows, T)
    weights = 1 - np.abs((taps + 0.5 - centres[:, None]) / support)
    weights = np.where(taps < last[:, None], weights, 0).clip(min=0)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    taps = np.minimum(taps, old - 1)
    result = np.empty((rows, *image.shape[1:]), dtype=np.uint8)
    # In blocks that stay in the processor's cache.
    block = max(2**18 // max(image.shape[1] * image.shape[2], 1), 1)
    for start in range(0, rows, block):
        part = slice(start, start + block)
        total = np.full((len(taps[part]), *image.shape[1:]), 0.5, dtype=np.float32)
        for tap in range(taps.shape[1]):
            total += weights[part, tap, None, None] * image[taps[part, tap]]
        result[part] = total  # cut off after the half added: rounded
    return result
