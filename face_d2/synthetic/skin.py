"""The skin of a synthetic face: complexion, eyes, brows, lips, beard, glasses.

It is painted on a map in cylindrical coordinates (u, v), which
:mod:`face_d2.synthetic.head` wraps around a three-dimensional head: u is the longitude in
radians about the head's upright axis, 0 at the nose and positive toward +x; v is the height in
head units (half a head's height, about 11.5 cm), -1 at the crown, 0 at the eyes, 1 at the chin.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from face_d2.synthetic.canvas import Floats, Rng, noise
from face_d2.synthetic.look import Look

U_RANGE = 1.5
"""The map covers longitudes -U_RANGE..U_RANGE."""
V_LOW, V_HIGH = -1.05, 1.15
U_SCALE = 0.75
"""Head units of surface per radian of longitude."""


class SkinMap:
    """The unrolled skin of one head.

    Attributes:
        scale: pixels per head unit.
        albedo: (h, w, 3) float32, BGR reflectance in 0-255 as seen on a screen.
        relief: (h, w) float32, height above the head's plain shape in head units.
    """

    def __init__(self, scale: float, color: ArrayLike) -> None:
        self.scale = scale
        self.width = round(2 * U_RANGE * U_SCALE * scale) + 1
        self.height = round((V_HIGH - V_LOW) * scale) + 1
        self.albedo = np.empty((self.height, self.width, 3), np.float32)
        self.albedo[:] = np.asarray(color, np.float32)
        self.relief = np.zeros((self.height, self.width), np.float32)
        self.u = np.linspace(-U_RANGE, U_RANGE, self.width, dtype=np.float32)
        self.v = np.linspace(V_LOW, V_HIGH, self.height, dtype=np.float32)

    def pixels(self, points: ArrayLike) -> Floats:
        """Map pixels (N, 2) of points (N, 2) given as (u, v)."""
        points = np.asarray(points, np.float32)
        return (points - (-U_RANGE, V_LOW)) * (U_SCALE * self.scale, self.scale)

    def bump(self, u: float, v: float, size_u: float, size_v: float, amount: float) -> None:
        """Raises (or, negative, lowers) the relief by a Gaussian hill."""
        hill, window = self._hill(u, v, size_u, size_v)
        self.relief[window] += amount * hill

    def tint(self, u: float, v: float, size_u: float, size_v: float, factor: ArrayLike) -> None:
        """Multiplies the color by ``factor`` (BGR) at (u, v), fading as a Gaussian."""
        hill, window = self._hill(u, v, size_u, size_v)
        self.albedo[window] *= 1 + hill[..., None] * (np.asarray(factor, np.float32) - 1)

    def _hill(
        self, u: float, v: float, size_u: float, size_v: float
    ) -> tuple[Floats, tuple[slice, slice]]:
        """A Gaussian of height 1 and the window of the map where it is not negligible."""
        rows = slice(*np.searchsorted(self.v, (v - 3 * size_v, v + 3 * size_v)))
        columns = slice(*np.searchsorted(self.u, (u - 3 * size_u, u + 3 * size_u)))
        column = np.exp(-0.5 * ((self.v[rows] - v) / size_v) ** 2)
        row = np.exp(-0.5 * ((self.u[columns] - u) / size_u) ** 2)
        return np.outer(column, row), (rows, columns)

    def mask(
        self, points: ArrayLike, soft: float = 0.0, stroke: float = 0.0
    ) -> tuple[Floats, int, int]:
        """Coverage of a polygon, or with ``stroke`` (head units) of a line through its points.

        Returns:
            coverage (h, w) in 0-1 and the column and row where it lies on the map.
        """
        corners = self.pixels(points)
        pad = 2 + (3 * soft + stroke) * self.scale
        low = np.maximum(np.floor(corners.min(0) - pad), 0).astype(int)
        high = np.minimum(np.ceil(corners.max(0) + pad), (self.width, self.height)).astype(int)
        size = np.maximum(high - low, 1)
        mask = np.zeros((size[1], size[0]), np.uint8)
        fixed = np.round((corners - low) * 16).astype(np.int32)
        weight = 1.0
        if stroke:
            pixels = stroke * self.scale
            weight = min(1.0, pixels)
            cv2.polylines(mask, [fixed], False, 255, max(1, round(pixels)), cv2.LINE_AA, 4)
        else:
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, 4)
        coverage = mask.astype(np.float32) * (weight / 255)
        if soft * self.scale > 0.3:
            coverage = cv2.GaussianBlur(coverage, (0, 0), soft * self.scale)
        return coverage, int(low[0]), int(low[1])

    def paint(
        self,
        points: ArrayLike,
        color: ArrayLike,
        *,
        alpha: float = 1.0,
        soft: float = 0.0,
        stroke: float = 0.0,
        inside: tuple[Floats, int, int] | None = None,
    ) -> None:
        """Paints a polygon or a line; ``inside`` confines it to another :meth:`mask`."""
        coverage, x, y = self.mask(points, soft, stroke)
        if inside is not None:
            frame = np.zeros((self.height, self.width), np.float32)
            frame[
                inside[2] : inside[2] + inside[0].shape[0],
                inside[1] : inside[1] + inside[0].shape[1],
            ] = inside[0]
            coverage = coverage * frame[y : y + coverage.shape[0], x : x + coverage.shape[1]]
        region = self.albedo[y : y + coverage.shape[0], x : x + coverage.shape[1]]
        coverage = coverage[: region.shape[0], : region.shape[1]]
        region += (alpha * coverage)[..., None] * (np.asarray(color, np.float32) - region)


def _arc(center_u: float, center_v: float, half: float, rise: float, power: float = 1.0) -> Floats:
    """A curve over ``2 * half`` radians that is ``rise`` lower at its ends than in its middle."""
    t = np.linspace(-1, 1, 15)
    return np.stack([center_u + half * t, center_v + rise * np.abs(t) ** (2 * power)], axis=1)


def _disc(u: float, v: float, radius: float, stretch: float = 1.0) -> Floats:
    """A circle of ``radius`` head units around (u, v), as (u, v) points."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack(
        [u + radius / U_SCALE * np.cos(turn), v + stretch * radius * np.sin(turn)], axis=1
    )


def paint_skin(look: Look, scale: float, rng: Rng) -> SkinMap:
    """Paints a whole face.

    Args:
        look: the face.
        scale: pixels per head unit.
        rng: source of the skin's unevenness.
    """
    skin = SkinMap(scale, look.skin)
    blotch = noise(rng, skin.height, skin.width, 0.5 * scale, 4)
    skin.albedo *= 1 + 0.05 * blotch[..., None]
    _paint_complexion(skin, look, rng)
    _paint_beard(skin, look, rng)
    for side in (-1.0, 1.0):
        _paint_eye(skin, look, side)
        _paint_brow(skin, look, side)
    _paint_nose(skin, look)
    _paint_mouth(skin, look)
    if look.masked:
        _paint_mask(skin, look)
    if look.glasses != "none":
        _paint_glasses(skin, look)
    return skin


def _paint_complexion(skin: SkinMap, look: Look, rng: Rng) -> None:
    rosy = 0.06 + 0.1 * look.makeup
    for side in (-1, 1):
        skin.tint(0.5 * side, 0.36, 0.22, 0.16, (1 - rosy, 1 - rosy, 1 + 0.3 * rosy))
        skin.tint(0.3 * side, 0.0, 0.2, 0.12, (0.82, 0.83, 0.88))
        skin.tint(0.3 * side, 0.13, 0.14, 0.04, np.array((0.93, 0.92, 0.93)) - 0.07 * look.age)
        fold = [(0.15 * side, 0.40), (0.27 * side, 0.52), (0.33 * side, 0.66)]
        depth = 0.12 + 0.35 * look.age + 0.25 * max(0.0, look.smile)
        skin.paint(fold, look.skin * 0.6, alpha=depth, soft=0.012, stroke=0.02)
    skin.tint(0, 0.36, 0.14, 0.1, (0.95, 0.95, 1.02))
    skin.tint(0, 0.82, 0.25, 0.05, (0.92, 0.92, 0.93))
    for line in range(3):
        crease = _arc(0, -0.36 - 0.08 * line, 0.42, 0.02)
        skin.paint(crease, look.skin * 0.6, alpha=0.45 * look.age, soft=0.01, stroke=0.012)
    if rng.random() < 0.12:
        freckles = noise(rng, skin.height, skin.width, max(2.0, 0.05 * skin.scale), 1)
        skin.albedo *= 1 - 0.25 * np.clip(freckles - 0.3, 0, 1)[..., None]


def _paint_beard(skin: SkinMap, look: Look, rng: Rng) -> None:
    if not (look.beard or look.moustache):
        return
    u, v = skin.u[None, :], skin.v[:, None]
    low = np.clip((v - 0.42 - 0.35 * np.clip(1 - np.abs(u) / 0.7, 0, 1)) / 0.12, 0, 1)
    sides = np.clip((np.abs(u) - 0.8) / 0.2, 0, 1) * np.clip((v - 0.05) / 0.2, 0, 1)
    chin = np.clip(1.6 - np.hypot(u / 0.3, (v - 0.66) / 0.17), 0, 1) * (v > 0.5)
    beard = look.beard * np.clip(np.maximum(low, sides) + chin, 0, 1)
    lip = np.clip(1.5 - np.hypot(u / 0.24, (v - 0.50) / 0.05), 0, 1)
    cover = np.maximum(beard, look.moustache * lip).astype(np.float32)
    grain = noise(rng, skin.height, skin.width, max(2.0, 0.06 * skin.scale), 2)
    cover = np.clip(cover * (0.85 + 0.45 * grain), 0, 0.95)[..., None]
    skin.albedo += cover * (look.hair * (0.9 + 0.2 * grain[..., None]) - skin.albedo)


def _paint_eye(skin: SkinMap, look: Look, side: float) -> None:
    u = side * np.arctan2(look.eye_gap, 0.86)
    half = 0.165 * look.eye_size
    opening = 0.078 * look.eye_size * look.eye_open
    t = np.linspace(-1, 1, 17)
    lift = -look.eye_tilt * t * side
    upper = np.stack([u + half * t, lift - opening * (1 - t * t) ** 0.75], axis=1)
    lower = np.stack([u + half * t, lift + 0.62 * opening * (1 - t * t)], axis=1)
    almond = np.concatenate([upper, lower[::-1]])
    dark = np.minimum(look.skin * 0.25, 60)
    skin.bump(u, -0.02, 0.17, 0.12, -0.055)
    skin.bump(u, 0.0, 0.1, 0.07, 0.03)
    shadow = np.array((0.75, 0.7, 0.72)) if look.makeup > 0.5 else np.array((0.85, 0.85, 0.88))
    skin.tint(u, -0.075, 0.13, 0.035, shadow)
    if look.eye_open < 0.2:
        skin.paint(lower, dark, alpha=0.9, stroke=0.028)
        return
    inside = skin.mask(almond)
    skin.paint(almond, np.array((222, 226, 230)) - 8 * look.age)
    center = u + 0.06 * look.gaze
    skin.paint(_disc(center, -0.008, 0.07 * look.eye_size), look.iris * 0.45, inside=inside)
    skin.paint(_disc(center, -0.008, 0.058 * look.eye_size), look.iris, inside=inside)
    skin.paint(_disc(center, -0.008, 0.032 * look.eye_size), (8, 8, 8), inside=inside)
    skin.paint(
        upper - (0, -0.014), look.skin * 0.3, alpha=0.55, stroke=0.03, soft=0.008, inside=inside
    )
    skin.paint(_disc(center + 0.025, -0.03, 0.014), (255, 255, 255), alpha=0.9)
    skin.paint(upper, dark, alpha=0.9, stroke=0.022 + 0.016 * look.makeup)
    skin.paint(lower, look.skin * 0.45, alpha=0.55, stroke=0.012)
    crease = upper[2:-1] - (0, 0.035)
    skin.paint(crease, look.skin * 0.45, alpha=0.5, stroke=0.012, soft=0.006)


def _paint_brow(skin: SkinMap, look: Look, side: float) -> None:
    t = np.linspace(0, 1, 11)
    u = side * (0.13 + 0.38 * t)
    base = -0.155 - 0.05 * look.brow_lift
    v = base - 0.05 * np.sin(np.pi * t * 0.8) + 0.035 * look.brow_frown * (1 - t)
    weight = 0.026 * look.brow_weight * np.clip(1.25 - t, 0, 1) ** 0.7
    line = np.concatenate(
        [np.stack([u, v - weight], axis=1), np.stack([u, v + weight], axis=1)[::-1]]
    )
    color = np.minimum(look.hair * 0.7, look.skin * 0.6)
    skin.paint(line, color, alpha=0.85, soft=0.008)
    skin.bump(side * 0.3, -0.15, 0.2, 0.05, 0.02)


def _paint_nose(skin: SkinMap, look: Look) -> None:
    base = 0.34 + 0.06 * look.nose_length
    for side in (-1, 1):
        u = side * 0.075 * look.nose_width
        nostril = _disc(u, base + 0.035, 0.035 * look.nose_width, 0.5)
        skin.paint(nostril, look.skin * 0.22, alpha=0.85, soft=0.008)
        wing = [(u * 1.9, base - 0.05), (u * 2.2, base), (u * 1.8, base + 0.045)]
        skin.paint(wing, look.skin * 0.5, alpha=0.4, stroke=0.016, soft=0.008)
        skin.tint(0.13 * side, 0.1, 0.05, 0.14, (0.9, 0.9, 0.93))
    skin.tint(0, base + 0.05, 0.13, 0.03, (0.72, 0.72, 0.78))
    skin.tint(0, 0.12, 0.04, 0.16, (1.05, 1.05, 1.04))


def _paint_mouth(skin: SkinMap, look: Look) -> None:
    v = 0.6 + 0.02 * look.nose_length
    half = 0.26 * look.mouth_width * (1 + 0.2 * max(0.0, look.smile) - 0.25 * look.mouth_open)
    gap = 0.17 * look.mouth_open
    t = np.linspace(-1, 1, 19)
    round_off = 1 - t * t
    line = v - 0.075 * look.smile * (t * t - 0.3)
    bow = 1 - 0.28 * np.exp(-((t / 0.18) ** 2))
    points_u = half * t

    def curve(rows: Floats) -> Floats:
        return np.stack([points_u, rows], axis=1)

    upper_top = curve(line - 0.6 * gap * round_off - 0.05 * look.lip_weight * bow * round_off**0.6)
    upper_low = curve(line - 0.6 * gap * round_off)
    lower_top = curve(line + 1.4 * gap * round_off)
    lower_low = curve(line + 1.4 * gap * round_off + 0.062 * look.lip_weight * round_off**0.7)
    skin.bump(0, v + 0.5 * gap, 0.17, 0.07, 0.035)
    skin.paint(
        np.concatenate([upper_top, upper_low[::-1]]), look.lips * 0.86, alpha=0.9, soft=0.006
    )
    skin.paint(
        np.concatenate([lower_top, lower_low[::-1]]), look.lips * 1.06, alpha=0.9, soft=0.006
    )
    teeth = gap > 0.02 or look.smile > 0.75
    if teeth:
        show = max(gap, 0.03)
        hole = np.concatenate([upper_low, curve(line + 1.4 * show * round_off)[::-1]])
        inside = skin.mask(hole)
        skin.paint(hole, (22, 14, 46))
        white = np.array((205, 222, 232)) - 30 * look.age
        top = upper_low.copy()
        top[:, 1] = top[:, 1].min() - 0.02
        row = np.concatenate([top, curve(line - 0.6 * gap * round_off + 0.062)[::-1]])
        skin.paint(row, white, inside=inside, soft=0.004)
        if gap > 0.08:
            tongue = _disc(0, v + 1.25 * gap, 0.5 * half * U_SCALE, 0.35)
            skin.paint(tongue, (85, 75, 175), inside=inside, soft=0.01)
    else:
        skin.paint(upper_low, look.lips * 0.35, alpha=0.85, stroke=0.016)
    skin.tint(0, v + 1.4 * gap + 0.11, 0.16, 0.025, (0.82, 0.82, 0.84))


def _paint_mask(skin: SkinMap, look: Look) -> None:
    outline = [(-1.3, 0.12), (-0.4, 0.22), (0, 0.1), (0.4, 0.22), (1.3, 0.12)]
    outline += [(1.0, 0.75), (0.5, 1.1), (-0.5, 1.1), (-1.0, 0.75)]
    color = look.gear * 0.35 + np.array((225, 215, 200)) * 0.65
    skin.paint(outline, color, soft=0.008)
    for row in (0.38, 0.52, 0.66):
        skin.paint(_arc(0, row, 0.9, 0.05), color * 0.8, stroke=0.014, alpha=0.7, soft=0.006)


def _paint_glasses(skin: SkinMap, look: Look) -> None:
    frame = look.gear * 0.3 if look.glasses == "clear" else np.minimum(look.gear * 0.3, 45)
    turn = np.linspace(0, 2 * np.pi, 28)
    for side in (-1, 1):
        u = side * np.arctan2(look.eye_gap, 0.86)
        lens = np.stack(
            [
                u + 0.27 * np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.8,
                0.02 + 0.145 * np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.8,
            ],
            axis=1,
        )
        if look.glasses == "sun":
            skin.paint(lens, np.minimum(look.gear * 0.15, 30), alpha=0.95)
            shine = [(u - 0.15, -0.06), (u + 0.02, -0.09), (u - 0.1, 0.0)]
            skin.paint(shine, (150, 145, 140), alpha=0.5, soft=0.02)
        else:
            skin.paint(lens, (235, 235, 235), alpha=0.07)
        skin.paint(lens, frame, stroke=0.026, alpha=0.95)
        skin.paint([(u + side * 0.27, -0.03), (side * 1.4, -0.06)], frame, stroke=0.026)
    skin.paint(_arc(0, -0.02, 0.05, 0.015), frame, stroke=0.024)
