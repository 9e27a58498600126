"""Training augmentations, as Detectron2 ``Augmentation`` objects."""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import math
from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform, Transform, TransformList
from numpy.typing import NDArray

from face_d2.ops.resize import THIN

__all__ = ["BoundedResize", "PhotometricDistortion", "SquareFaceCrop"]


class BoundedResize(T.ResizeShortestEdge):
    """Detectron2's resize by the shorter side, for images of any shape.

    The plain rule resizes an image of 1 x 20000 pixels to 800 x 16 million, or, with a limit for
    the longer side, to a height of 0. Here, images that are more than 16 times as long as wide are
    not enlarged, and every side has at least one pixel.
    """

    def get_transform(self, image: NDArray[np.uint8]) -> Transform:
        """The resize of ``image`` (H, W, C)."""
        resize = super().get_transform(image)
        if not isinstance(resize, T.ResizeTransform):  # a size of 0 means no resize
            return resize
        height, width = image.shape[:2]
        thin = max(height, width) > THIN * min(height, width)
        if thin and max(resize.new_h, resize.new_w) > max(height, width):
            return T.NoOpTransform()
        resize.new_h, resize.new_w = max(resize.new_h, 1), max(resize.new_w, 1)
        return resize


class SquareFaceCrop(T.Augmentation):
    """A random square of the image, resized to one size.

    The side follows S3FD's rule (arXiv 1708.05237, section 3.3). With probability 1/5, it is the
    image's shorter side, or ``max_scale`` times this side if that is less. Otherwise it is uniform
    in [``min_scale``, ``max_scale``] times the shorter side. With ``zoom``, the factor of the
    resize is drawn instead, so that the face sizes in the crop do not depend on the image size. The
    position of the square is uniform. A square that is longer than the image contains the whole
    image, surrounded by ``fill``. A face belongs to the crop if its center does; the mapper drops
    the others. arXiv 1811.08557, section 3.4, uses random crops.

    Args:
        size: side of the output in pixels.
        min_scale: minimum side of the square, as a fraction of the shorter side.
        attempts: maximum number of draws until a square contains the center of a face; the last
            square is kept as background.
        zoom: (min, max) factor of the resize, drawn log-uniformly: the side is
            ``size / factor`` pixels, at most ``max_scale`` times the shorter side. Empty for S3FD's
            rule.
        max_scale: maximum side of the square, as a fraction of the shorter side; above 1, squares
            reach beyond the image.
        fill: color outside the image, a value in 0-255 per channel.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        size: int,
        min_scale: float = 0.3,
        attempts: int = 10,
        zoom: Sequence[float] = (),
        max_scale: float = 1.0,
        fill: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        super().__init__()
        if not 0 < min_scale <= 1:
            raise ValueError(
                f"INPUT.FACE_CROP.MIN_SCALE is {min_scale}; expected a fraction in (0, 1]."
            )
        if not min_scale <= max_scale < math.inf:
            raise ValueError(
                f"INPUT.FACE_CROP.MAX_SCALE is {max_scale}; expected a finite number that is at "
                f"least MIN_SCALE ({min_scale})."
            )
        if size < 1 or attempts < 1:
            raise ValueError(
                f"INPUT.FACE_CROP.SIZE is {size} and ATTEMPTS is {attempts}; both must be at least "
                "1."
            )
        if len(zoom) and not (len(zoom) == 2 and 0 < zoom[0] <= zoom[1] < math.inf):
            raise ValueError(
                f"INPUT.FACE_CROP.ZOOM is {list(zoom)}; expected [] or two factors "
                "[min, max] with 0 < min <= max, for example [0.5, 2.0]."
            )
        self.size, self.attempts, self.zoom = size, attempts, tuple(zoom)
        self.min_scale, self.max_scale = min_scale, max_scale
        self.fill = tuple(round(value) for value in fill)

    def get_transform(self, image: NDArray[np.uint8], boxes: NDArray[np.floating]) -> Transform:
        """Draws a crop of ``image`` (H, W, C); ``boxes`` are (N, 4) XYXY."""
        height, width = image.shape[:2]
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2  # (N, 2) x, y
        for _ in range(self.attempts):
            side = self._draw_side(min(height, width))
            x, y = _draw_start(width, side), _draw_start(height, side)
            inside = (centers >= (x, y)) & (centers < (x + side, y + side))
            if len(boxes) == 0 or inside.all(axis=1).any():
                break
        if side <= min(height, width):
            crop = CropTransform(x, y, side, side, orig_w=width, orig_h=height)
        else:
            crop = _PaddedCrop(x, y, side, width, height, self.fill)
        resize = _Enlarge if side < self.size else T.ResizeTransform
        return TransformList([crop, resize(side, side, self.size, self.size)])

    def _draw_side(self, short: int) -> int:
        largest = np.random.rand() < 0.2
        largest_scale = min(self.max_scale, 1.0)
        scale = largest_scale if largest else np.random.uniform(self.min_scale, self.max_scale)
        if not self.zoom:
            return max(int(short * scale), 1)
        # The numbers above are drawn even if unused, so that resumed trainings get the same crops.
        factor = np.exp(np.random.uniform(*np.log(self.zoom)))
        return max(min(round(self.size / factor), int(short * self.max_scale)), 1)


def _draw_start(length: int, side: int) -> int:
    """Draws the start of ``side`` pixels that lie inside ``length`` pixels or around them."""
    return int(np.random.randint(min(length - side, 0), max(length - side, 0) + 1))


class _PaddedCrop(CropTransform):
    """A square crop that may reach beyond the image, where it has the color ``fill``."""

    def __init__(
        self, x: int, y: int, side: int, width: int, height: int, fill: tuple[int, ...]
    ) -> None:
        super().__init__(x, y, side, side, orig_w=width, orig_h=height)
        self.fill = fill

    def apply_image(self, img: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = img.shape[:2]
        inside = img[max(self.y0, 0) : self.y0 + self.h, max(self.x0, 0) : self.x0 + self.w]
        top, left = max(-self.y0, 0), max(-self.x0, 0)
        bottom = max(self.y0 + self.h - height, 0)
        right = max(self.x0 + self.w - width, 0)
        return cv2.copyMakeBorder(
            inside, top, bottom, left, right, cv2.BORDER_CONSTANT, value=self.fill
        )


class _Enlarge(T.ResizeTransform):
    """A bilinear enlargement, five times as fast as Detectron2's, which uses Pillow.

    Values differ from Pillow's by at most 1 and are the same on every machine. Pillow still does
    the shrinking, because it averages over all pixels.
    """

    def apply_image(self, img: NDArray[np.uint8], interp: int | None = None) -> NDArray[np.uint8]:
        return cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR_EXACT)


class PhotometricDistortion(T.Augmentation):
    """Random brightness, contrast, saturation and hue, each with probability 1/2.

    The ranges are those of SSD's data augmentation, which S3FD adopts: brightness +-32, contrast
    and saturation times 0.5 to 1.5, hue +-18 of OpenCV's 180 degrees. Contrast is changed first or
    last with equal probability.

    Args:
        image_format: "BGR" or "RGB", the channel order of the images.
    """

    def __init__(self, image_format: str = "BGR") -> None:
        super().__init__()
        if image_format not in ("BGR", "RGB"):
            raise ValueError(f"image format is {image_format!r}; expected 'BGR' or 'RGB'.")
        self._to_hsv = getattr(cv2, f"COLOR_{image_format}2HSV")
        self._from_hsv = getattr(cv2, f"COLOR_HSV2{image_format}")

    def get_transform(self, image: NDArray[np.uint8]) -> Transform:
        brightness = np.random.uniform(-32, 32) if _coin() else 0.0
        contrast = np.random.uniform(0.5, 1.5) if _coin() else 1.0
        saturation = np.random.uniform(0.5, 1.5) if _coin() else 1.0
        hue = np.random.uniform(-18, 18) if _coin() else 0.0
        contrast_first = _coin()

        def distort(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            # Tables of 256 values; consecutive tables are merged into one lookup.
            before, after = _table(np.arange(256) + brightness), _table(np.arange(256) * contrast)
            if contrast_first:
                before = after[before]
            if saturation == 1.0 and hue == 0.0:
                return cv2.LUT(pixels, before if contrast_first else after[before])
            pixels = self._shift_color(cv2.LUT(pixels, before), saturation, hue)
            return pixels if contrast_first else cv2.LUT(pixels, after)

        return T.ColorTransform(distort)

    def _shift_color(
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
