"""Ellipsoids in parallel projection: depth, smooth union, light.

View coordinates: x to the right, y down, z toward the viewer, in the units of the solid that is
drawn; the origin is the solid's center.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from face_d2.synthetic.canvas import Floats, Rng

FAR = -9.0
"""Depth where there is nothing."""


@dataclass(frozen=True)
class Pose:
    """Rotation of a head in radians: yaw (positive: toward +x), pitch (down), roll (clockwise)."""

    yaw: float
    pitch: float
    roll: float

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3), turns head coordinates into view coordinates."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        yaw = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        pitch = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        roll = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        return roll @ pitch @ yaw


@dataclass(frozen=True)
class Light:
    """Illumination of a scene.

    Attributes:
        direction: unit vector toward the main light, in view coordinates.
        key: strength of the main light, a factor on surface colors.
        ambient: strength of the light from all directions, on the same scale.
        tint: factor for each channel (BGR), about 1.
    """

    direction: tuple[float, float, float]
    key: float
    ambient: float
    tint: tuple[float, float, float]


def random_light(rng: Rng) -> Light:
    """Ordinary light: from above or the side, softened, nearly white."""
    direction = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.9, 0.05), 1.0])
    direction /= np.linalg.norm(direction)
    tint = 1 + rng.uniform(-0.06, 0.06, 3)
    return Light(tuple(direction), rng.uniform(0.6, 1.0), rng.uniform(0.3, 0.6), tuple(tint))


class View:
    """Depth maps of ellipsoids over one grid of view coordinates."""

    def __init__(
        self,
        scale: float,
        rotation: NDArray[np.float64],
        frame: tuple[float, float, float, float],
    ) -> None:
        left, top, right, bottom = frame
        self.frame = frame
        self.scale = scale
        self.rotation = rotation
        self.width = int(np.ceil((right - left) * scale))
        self.height = int(np.ceil((bottom - top) * scale))
        self.x = (left + (np.arange(self.width, dtype=np.float32) + 0.5) / scale)[None, :]
        self.y = (top + (np.arange(self.height, dtype=np.float32) + 0.5) / scale)[:, None]

    def empty(self) -> Floats:
        return np.full((self.height, self.width), FAR, np.float32)

    def ellipsoid(
        self,
        center: Sequence[float],
        radii: Sequence[float],
        *,
        wobble: Floats | None = None,
        rotation: NDArray[np.float64] | None = None,
    ) -> tuple[Floats, tuple[slice, slice]]:
        """Depth of an ellipsoid given in head coordinates, and the window it lies in.

        Args:
            center: its center.
            radii: its half axes along x, y, z.
            wobble: (H, W) relative change of its size, for uneven outlines.
            rotation: used in place of the head's.
        """
        turn = self.rotation if rotation is None else rotation
        squares = np.square(np.asarray(radii, np.float64))
        cx, cy, cz = turn @ np.asarray(center, np.float64)
        reach = np.sqrt(np.diag(turn @ np.diag(squares) @ turn.T))
        if wobble is not None:
            reach = reach * (1 + float(np.abs(wobble).max()))
        left, top = self.frame[:2]
        columns = slice(
            max(0, int((cx - reach[0] - left) * self.scale)),
            max(0, int((cx + reach[0] - left) * self.scale) + 2),
        )
        rows = slice(
            max(0, int((cy - reach[1] - top) * self.scale)),
            max(0, int((cy + reach[1] - top) * self.scale) + 2),
        )
        form = (turn @ np.diag(1 / squares) @ turn.T).astype(np.float32)
        dx = self.x[:, columns] - np.float32(cx)
        dy = self.y[rows] - np.float32(cy)
        size = np.float32(1)
        if wobble is not None:
            size = (1 + wobble[rows, columns]) ** 2
        slope = form[0, 2] * dx + form[1, 2] * dy
        rest = form[0, 0] * dx * dx + 2 * form[0, 1] * dx * dy + form[1, 1] * dy * dy - size
        inside = slope * slope - form[2, 2] * rest
        depth = np.where(
            inside > 0, (np.sqrt(np.maximum(inside, 0)) - slope) / form[2, 2] + np.float32(cz), FAR
        )
        return depth.astype(np.float32), (rows, columns)

    def head_points(self, depth: Floats) -> tuple[Floats, Floats, Floats]:
        """Head coordinates x, y, z (each (H, W)) of the surface points at ``depth``."""
        turn = self.rotation.astype(np.float32)
        return tuple(
            turn[0, axis] * self.x + turn[1, axis] * self.y + turn[2, axis] * depth
            for axis in range(3)
        )


def smooth_union(view: View, parts: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Floats:
    """Depth of several ellipsoids melted into one surface."""
    sharpness = 17.0
    total = np.zeros((view.height, view.width), np.float32)
    for center, radii in parts:
        depth, window = view.ellipsoid(center, radii)
        total[window] += np.exp(sharpness * depth)
    with np.errstate(divide="ignore"):
        surface = np.log(total) / sharpness
    return np.where(total > 1e-12, surface, FAR).astype(np.float32)


def shading(
    depth: Floats, solid: NDArray[np.bool_], scale: float, light: Light, gloss: Floats
) -> Floats:
    """Brightness (H, W, 3) of a surface of unit reflectance, linear light."""
    floor = np.where(solid, depth, -0.6).astype(np.float32)
    smooth = cv2.GaussianBlur(floor, (0, 0), max(0.6, 0.022 * scale))
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3) * (scale / 8)
    slope_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3) * (scale / 8)
    length = 1 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1)
    nx, ny, nz = -slope_x * length, -slope_y * length, length
    lx, ly, lz = light.direction
    wrap = 0.25
    diffuse = np.clip((nx * lx + ny * ly + nz * lz + wrap) / (1 + wrap), 0, None)
    cavity = cv2.GaussianBlur(floor, (0, 0), 0.13 * scale) - floor
    open_sky = np.clip(1 - 1.3 * np.maximum(cavity, 0), 0.45, 1) * (0.85 - 0.2 * ny)
    half = np.array([lx, ly, lz + 1])
    half = half / np.linalg.norm(half)
    mirror = np.clip(nx * half[0] + ny * half[1] + nz * half[2], 0, 1) ** 24 * gloss
    level = light.ambient * open_sky + light.key * (
        diffuse * np.clip(open_sky + 0.2, 0, 1) + mirror
    )
    return level[..., None] * np.asarray(light.tint, np.float32)
