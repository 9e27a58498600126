"""Resizing of test images without Detectron2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["THIN", "SizeRule", "resize"]

#: Images with a larger aspect ratio are not enlarged.
THIN = 16


@dataclass(frozen=True)
class SizeRule:
    """The size to which a test image is resized.

    Attributes:
        min_size: shorter side after resizing, in pixels (``INPUT.MIN_SIZE_TEST``); 0 keeps the
            original size.
        max_size: maximum of the longer side (``INPUT.MAX_SIZE_TEST``); 0 is no limit.
        min_side: the network enlarges an image whose shorter side is below this; 0 never.
    """

    min_size: int = 0
    max_size: int = 0
    min_side: int = 0

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the resized image, the input of the network.

        The rule is that of :class:`face_d2.data.augmentation.BoundedResize`: Detectron2's
        ResizeShortestEdge, except that very narrow images are not enlarged and each side has at
        least one pixel.
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
        """Number of pixels that the network processes for a resized image of this size."""
        return height * width * max(self.min_side / min(height, width), 1.0) ** 2


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resizes (H, W, 3) uint8 to (height, width, 3) as training and evaluation do: by Pillow."""
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    return np.array(Image.fromarray(image).resize((width, height), Image.BILINEAR))
