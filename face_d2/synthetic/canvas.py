"""Painting primitives of the synthetic face pictures: noise, textures, colors and a canvas.

Pictures are BGR ``uint8`` arrays (H, W, 3). Colors are BGR triples in 0-255, points are (x, y)
pixels with the origin at the top left corner of the picture. Everything random comes from the
``numpy.random.Generator`` that is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Rng = np.random.Generator
Floats = NDArray[np.float32]
Texture = Callable[[int, int], Floats]
"""A fill: called with (height, width), returns BGR values (height, width, 3) in 0-255."""
Fill = ArrayLike | Texture

_SUBPIXEL_BITS = 4


def noise(rng: Rng, height: int, width: int, cell: float, octaves: int = 3) -> Floats:
    """Smooth fractal noise.

    Args:
        rng: source of randomness.
        height: rows of the result.
        width: columns of the result.
        cell: size in pixels of the largest structures; each octave halves it.
        octaves: number of layers, each with half the weight of the one before.

    Returns:
        (height, width), roughly in -1..1.
    """
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    for _ in range(octaves):
        rows = max(2, int(np.ceil(height / cell)) + 2)
        columns = max(2, int(np.ceil(width / cell)) + 2)
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        weight *= 0.5
        cell = cell / 2
        if cell < 1:
            break
    return total / 1.4


def color_from_hsv(hue: float, saturation: float, value: float) -> Floats:
    """A BGR color in 0-255 from hue in 0-1 (wrapping), saturation and value in 0-1."""
    pixel = np.array([[[hue % 1.0 * 360.0, saturation, value]]], np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0] * 255


def random_color(rng: Rng, saturation: float = 0.6, low: float = 0.1, high: float = 0.95) -> Floats:
    """A BGR color of any hue, saturation up to ``saturation`` and value in ``low``..``high``."""
    return color_from_hsv(rng.random(), saturation * rng.random(), rng.uniform(low, high))


_SKIN_RGB = np.array(
    [
        (250, 224, 206),
        (240, 200, 172),
        (226, 176, 142),
        (200, 146, 110),
        (164, 112, 80),
        (120, 78, 55),
        (84, 54, 40),
        (58, 38, 30),
    ],
    np.float32,
)


def skin_color(rng: Rng) -> Floats:
    """A BGR skin tone in 0-255, spread over the human range from very light to very dark."""
    position = rng.uniform(0, len(_SKIN_RGB) - 1.001)
    index = int(position)
    rgb = _SKIN_RGB[index] + (position - index) * (_SKIN_RGB[index + 1] - _SKIN_RGB[index])
    rgb = rgb * rng.uniform(0.95, 1.05) * (1 + rng.uniform(-0.04, 0.04, 3))
    return np.clip(rgb[::-1], 0, 255).astype(np.float32)


def plain(color: ArrayLike, rng: Rng, grain: float = 6.0) -> Texture:
    """A nearly uniform surface: the color, a slow gradient and a little fractal noise."""
    base = np.asarray(color, np.float32)
    slope_x, slope_y = rng.uniform(-18, 18, 2)
    cell = rng.uniform(8, 60)

    def texture(height: int, width: int) -> Floats:
        ramp = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :] * slope_x
        ramp = ramp + np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * slope_y
        ramp = ramp + grain * noise(rng, height, width, cell)
        return base + ramp[..., None]

    return texture


def cloth(rng: Rng, scale: float) -> Texture:
    """Clothing: plain, striped, checked, dotted or blotched, with soft folds.

    Args:
        rng: source of randomness.
        scale: pixels per pattern unit (about the width of a hand).
    """
    first = random_color(rng, 0.9, 0.05, 0.98)
    second = random_color(rng, 0.9, 0.05, 0.98)
    if rng.random() < 0.1:
        first = skin_color(rng)
    kind = rng.choice(["plain", "stripes", "bands", "check", "dots", "blotch"], p=_CLOTH_ODDS)
    period = max(2.5, scale * rng.uniform(0.3, 1.2))
    duty = rng.uniform(0.25, 0.6)
    folds = rng.uniform(4, 16)

    def texture(height: int, width: int) -> Floats:
        x = np.arange(width, dtype=np.float32)[None, :]
        y = np.arange(height, dtype=np.float32)[:, None]
        stripes_x = ((x / period) % 1 < duty).astype(np.float32)
        stripes_y = ((y / period) % 1 < duty).astype(np.float32)
        if kind == "stripes":
            mix = np.broadcast_to(stripes_x, (height, width))
        elif kind == "bands":
            mix = np.broadcast_to(stripes_y, (height, width))
        elif kind == "check":
            mix = 0.5 * (stripes_x + stripes_y)
        elif kind == "dots":
            distance = ((x / period) % 1 - 0.5) ** 2 + ((y / period) % 1 - 0.5) ** 2
            mix = (distance < 0.06).astype(np.float32)
        elif kind == "blotch":
            mix = np.clip(0.5 + 1.5 * noise(rng, height, width, max(2.0, 1.5 * scale)), 0, 1)
        else:
            mix = np.zeros((height, width), np.float32)
        shade = folds * noise(rng, height, width, max(3.0, 2 * scale), 2)
        return first + mix[..., None] * (second - first) + shade[..., None]

    return texture


_CLOTH_ODDS = (0.46, 0.12, 0.12, 0.12, 0.06, 0.12)


def ellipse_points(
    center: Sequence[float], radii: Sequence[float], angle: float = 0.0, count: int = 40
) -> Floats:
    """Points (count, 2) on an ellipse; ``angle`` in radians turns its first axis clockwise."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    x, y = radii[0] * np.cos(turn), radii[1] * np.sin(turn)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([center[0] + x * cos - y * sin, center[1] + x * sin + y * cos], axis=1).astype(
        np.float32
    )


def box_points(x0: float, y0: float, x1: float, y1: float) -> Floats:
    """The corners (4, 2) of an upright rectangle."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)


def limb_points(
    start: Sequence[float], end: Sequence[float], start_radius: float, end_radius: float
) -> Floats:
    """Outline of a rounded, tapering bar from ``start`` to ``end`` (its convex hull)."""
    ends = np.concatenate(
        [
            ellipse_points(start, (start_radius, start_radius), 0, 14),
            ellipse_points(end, (end_radius, end_radius), 0, 14),
        ]
    )
    return cv2.convexHull(ends)[:, 0]


def blob_points(
    rng: Rng, center: Sequence[float], radii: Sequence[float], rough: float = 0.2
) -> Floats:
    """A closed, uneven outline around an ellipse; ``rough`` is the relative unevenness."""
    turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    radius = np.ones_like(turn)
    for order in range(2, 6):
        radius += rough / order * rng.normal() * np.cos(order * turn + rng.uniform(0, 6.28))
    x = center[0] + radii[0] * radius * np.cos(turn)
    y = center[1] + radii[1] * radius * np.sin(turn)
    return np.stack([x, y], axis=1).astype(np.float32)


class Canvas:
    """A picture under construction that knows which face each of its pixels still shows.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        owner: (H, W) int16; the number of the face that a pixel shows, 0 where it shows none.
            Whatever is painted over a face takes its pixels away.
    """

    def __init__(self, height: int, width: int) -> None:
        self.image = np.zeros((height, width, 3), np.uint8)
        self.owner = np.zeros((height, width), np.int16)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.owner.shape[0], self.owner.shape[1]

    def window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[int, int, int, int]:
        """The pixels that a rectangle touches, clipped: x0, y0, x1, y1 (ends exclusive)."""
        height, width = self.size
        return (
            min(max(math.floor(x0), 0), width),
            min(max(math.floor(y0), 0), height),
            min(max(math.ceil(x1), 0), width),
            min(max(math.ceil(y1), 0), height),
        )

    def composite(
        self,
        colors: Floats,
        alpha: Floats,
        x: int,
        y: int,
        face: Floats | None = None,
        number: int = 0,
    ) -> None:
        """Lays a patch over the picture, parts outside are cut.

        Args:
            colors: (h, w, 3) BGR in 0-255, not multiplied by alpha.
            alpha: (h, w) in 0-1.
            x: column of the patch's left edge; may be negative.
            y: row of the patch's top edge; may be negative.
            face: (h, w) in 0-1, the part of the patch that is a face; None for none.
            number: the face's number, from 1.
        """
        height, width = alpha.shape
        x0, y0, x1, y1 = self.window(x, y, x + width, y + height)
        if x0 >= x1 or y0 >= y1:
            return
        part = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        region = self.image[y0:y1, x0:x1]
        mix = region + alpha[part][..., None] * (colors[part] - region)
        region[:] = np.clip(mix + 0.5, 0, 255).astype(np.uint8)
        owner = self.owner[y0:y1, x0:x1]
        owner[alpha[part] > 0.5] = 0
        if face is not None:
            owner[face[part] > 0.5] = number

    def polygon(
        self,
        points: ArrayLike,
        fill: Fill,
        *,
        alpha: float = 1.0,
        soft: float = 0.0,
        volume: float = 0.0,
    ) -> None:
        """Fills a polygon.

        Args:
            points: (N, 2) corners.
            fill: a color or a texture.
            alpha: opacity in 0-1.
            soft: sigma in pixels by which its edge is blurred.
            volume: how much the rim is darkened, in 0-1, so that the shape looks round.
        """
        mask, fixed, (x0, y0) = self._mask_around(points, 2 + 3 * soft)
        if not mask.size:
            return
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        self.fill_mask(mask.astype(np.float32) / 255, fill, x0, y0, alpha, soft, volume)

    def stroke(
        self,
        points: ArrayLike,
        color: ArrayLike,
        thickness: float,
        *,
        alpha: float = 1.0,
        closed: bool = False,
    ) -> None:
        """Draws a line through ``points`` (N, 2); below one pixel of thickness it fades instead."""
        mask, fixed, (x0, y0) = self._mask_around(points, thickness + 2)
        if not mask.size:
            return
        pixels = max(1, round(thickness))
        cv2.polylines(mask, [fixed], closed, 255, pixels, cv2.LINE_AA, _SUBPIXEL_BITS)
        strength = alpha * min(1.0, thickness)
        self.fill_mask(mask.astype(np.float32) / 255, color, x0, y0, strength, 0.0, 0.0)

    def _mask_around(
        self, points: ArrayLike, margin: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], tuple[int, int]]:
        """An empty mask (h, w) of the pixels around ``points`` (N, 2).

        Returns:
            The mask, which has no pixels if all of them are outside the picture; the points in it,
            as fixed-point numbers for OpenCV; and its position x, y in the picture.
        """
        corners = np.asarray(points, np.float32)
        low, high = corners.min(0) - margin, corners.max(0) + margin
        x0, y0, x1, y1 = self.window(low[0], low[1], high[0], high[1])
        mask = np.zeros((max(y1 - y0, 0), max(x1 - x0, 0)), np.uint8)
        fixed = np.round((corners - (x0, y0)) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        return mask, fixed, (x0, y0)

    def fill_mask(
        self, mask: Floats, fill: Fill, x: int, y: int, alpha: float, soft: float, volume: float
    ) -> None:
        """Blends a fill into the picture with a mask (h, w) of weights 0-1; see :meth:`polygon`."""
        height, width = mask.shape
        if callable(fill):
            colors = fill(height, width)
        else:
            colors = np.broadcast_to(np.asarray(fill, np.float32), (height, width, 3))
        if volume:
            sigma = max(1.0, 0.12 * min(height, width))
            inner = cv2.GaussianBlur(mask, (0, 0), sigma)
            colors = colors * (1 - volume + volume * np.clip(inner * 1.25, 0, 1))[..., None]
        if soft:
            mask = cv2.GaussianBlur(mask, (0, 0), soft)
        self.composite(colors, mask * alpha, x, y)
