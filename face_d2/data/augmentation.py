"""Training augmentations, as Detectron2 ``Augmentation`` objects."""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform, Transform, TransformList
from numpy.typing import NDArray

from face_d2.ops.resize import THIN

__all__ = ["BoundedResize", "PhotometricDistortion", "SquareFaceCrop"]


class BoundedResize(T.ResizeShortestEdge):
    """Detectron2's resize by the shorter side, for images of any shape.

    Of an image of 1 x 20000 pixels the plain rule makes one of 800 x 16 million, or, where the
    longer side is limited, one without any height. Here an image more than 16 times as long as wide
    is not enlarged, and no side comes to less than a pixel.
    """

    def get_transform(self, image: NDArray[np.uint8]) -> Transform:
        """The resize of ``image`` (H, W, C)."""
        resize = super().get_transform(image)
        if not isinstance(resize, T.ResizeTransform):  # sizes to draw from include 0: as it is
            return resize
        height, width = image.shape[:2]
        thin = max(height, width) > THIN * min(height, width)
        if thin and max(resize.new_h, resize.new_w) > max(height, width):
            return T.NoOpTransform()
        resize.new_h, resize.new_w = max(resize.new_h, 1), max(resize.new_w, 1)
        return resize


class SquareFaceCrop(T.Augmentation):
    """S3FD's random crop: one of five squares, resized to one size.

    With probability 1/5 the largest square of the image, otherwise a square whose side is uniform
    in [``min_scale``, 1] of the image's shorter side; its place is uniform. A face belongs to the
    crop when its centre does (the mapper drops the others). Source: design note DF2S2 3.4 asks for
    random crops; the recipe is S3FD's (arXiv 1708.05237, 3.3).

    Args:
        size: side of the result, in pixels.
        min_scale: smallest side of the four random squares as a share of the shorter side.
        attempts: a square without a face centre is drawn again, at most this often; the last one is
            kept as background.
    """

    def __init__(self, size: int, min_scale: float = 0.3, attempts: int = 10) -> None:
        super().__init__()
        if not 0 < min_scale <= 1:
            raise ValueError(f"INPUT.FACE_CROP.MIN_SCALE is {min_scale}; expected (0, 1].")
        if size < 1 or attempts < 1:
            raise ValueError("INPUT.FACE_CROP.SIZE and ATTEMPTS must be at least 1.")
        self.size, self.min_scale, self.attempts = size, min_scale, attempts

    def get_transform(self, image: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Transform:
        """Draws a crop of ``image`` (H, W, C); ``boxes`` are (N, 4) XYXY."""
        height, width = image.shape[:2]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # (N, 2) x, y
        for _ in range(self.attempts):
            x, y, side = self._draw_square(height, width)
            inside = (centres >= (x, y)) & (centres < (x + side, y + side))
            if len(boxes) == 0 or inside.all(axis=1).any():
                break
        crop = CropTransform(x, y, side, side, orig_w=width, orig_h=height)
        resize = _Enlarge if side < self.size else T.ResizeTransform
        return TransformList([crop, resize(side, side, self.size, self.size)])

    def _draw_square(self, height: int, width: int) -> tuple[int, int, int]:
        short = min(height, width)
        scale = 1.0 if np.random.rand() < 0.2 else np.random.uniform(self.min_scale, 1.0)
        side = max(int(short * scale), 1)
        x = np.random.randint(width - side + 1)
        y = np.random.randint(height - side + 1)
        return x, y, side


class _Enlarge(T.ResizeTransform):
    """A bilinear resize that does not shrink, five times as fast as Detectron2's (Pillow's).

    Values differ by at most 1 from it, and are the same on every machine. Shrinking is left to
    Pillow, which averages over all pixels.
    """

    def apply_image(self, img: NDArray[np.uint8], interp: int | None = None) -> NDArray[np.uint8]:
        return cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR_EXACT)


class PhotometricDistortion(T.Augmentation):
    """Random brightness, contrast, saturation and hue, each with probability 1/2.

    The ranges are those of SSD's data augmentation, which S3FD adopts: brightness +-32, contrast
    and saturation times 0.5 to 1.5, hue +-18 of OpenCV's 180 degrees; contrast comes first or last
    with equal chance.

    Args:
        image_format: "BGR" or "RGB", the channel order of the images.
    """

    def __init__(self, image_format: str = "BGR") -> None:
        super().__init__()
        if image_format not in ("BGR", "RGB"):
            raise ValueError(f"image format {image_format!r} unknown; expected 'BGR' or 'RGB'.")
        self._to_hsv = getattr(cv2, f"COLOR_{image_format}2HSV")
        self._from_hsv = getattr(cv2, f"COLOR_HSV2{image_format}")

    def get_transform(self, image: NDArray[np.uint8]) -> Transform:
        brightness = np.random.uniform(-32, 32) if _coin() else 0.0
        contrast = np.random.uniform(0.5, 1.5) if _coin() else 1.0
        saturation = np.random.uniform(0.5, 1.5) if _coin() else 1.0
        hue = np.random.uniform(-18, 18) if _coin() else 0.0
        contrast_first = _coin()

        def distort(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            # Tables of 256 values; those that follow each other are looked up in one go.
            before, after = _table(np.arange(256) + brightness), _table(np.arange(256) * contrast)
            if contrast_first:
                before = after[before]
            if saturation == 1.0 and hue == 0.0:
                return cv2.LUT(pixels, before if contrast_first else after[before])
            pixels = self._shift_colour(cv2.LUT(pixels, before), saturation, hue)
            return pixels if contrast_first else cv2.LUT(pixels, after)

        return T.ColorTransform(distort)

    def _shift_colour(
        self, pixels: NDArray[np.uint8], saturation: float, hue: float
    ) -> NDArray[np.uint8]:
        values = np.arange(256)
        hues = ((values + round(hue)) % 180).astype(np.uint8)
        tables = np.stack([hues, _table(values * saturation), values.astype(np.uint8)], axis=-1)
        shifted = cv2.LUT(cv2.cvtColor(pixels, self._to_hsv), tables[None])
        return cv2.cvtColor(shifted, self._from_hsv)


def _coin() -> bool:
    return bool(np.random.rand() < 0.5)


def _table(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
