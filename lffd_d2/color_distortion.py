"""Random changes of color, as in the released LFFD code."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["distort_colors"]


def distort_colors(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With probability 1/2, distorts brightness, saturation and contrast.

    Each of the three is then changed with probability 1/2, in random order, by a factor of 0.5 to
    1.5. Brightness multiplies the image, saturation blends it with the gray image, and contrast
    blends it with the mean of the gray image. Source: the released LFFD code.

    Args:
        image: (H, W, 3) BGR uint8.

    Returns:
        The same or a distorted image, of the same shape and type.
    """
    if np.random.rand() < 0.5:
        return image
    for kind in np.random.permutation(["brightness", "saturation", "contrast"]):
        if np.random.rand() < 0.5:
            continue
        factor = np.random.uniform(0.5, 1.5)
        if kind == "brightness":
            other: Any = np.zeros_like(image)
        else:
            gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            if kind == "contrast":
                gray = np.full_like(gray, round(gray.mean()))
            other = cv2.merge([gray, gray, gray])
        image = cv2.addWeighted(image, factor, other, 1 - factor, 0)  # rounds and clips
    return image
