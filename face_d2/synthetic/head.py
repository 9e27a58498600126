"""A three-dimensional head, drawn from any side.

A head is a smooth union of ellipsoids (skull, face, cheeks, jaw, nose, ears), seen in parallel
projection, with the skin of :mod:`face_d2.synthetic.skin` wrapped around it, hair and headwear
as further ellipsoids over it, and Lambert shading. So yaw, pitch and roll show what they would on a
real head, and the box of the face follows from its geometry.

Head coordinates: x to the viewer's right, y down, z toward the viewer at rest; the unit is half a
head's height; crown at y = -1, chin at y = 1. View coordinates are the same axes after the head's
rotation about its center.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from face_d2.synthetic.canvas import Canvas, Floats, Rng, noise
from face_d2.synthetic.look import Look
from face_d2.synthetic.skin import U_RANGE, U_SCALE, V_LOW, SkinMap, paint_skin
from face_d2.synthetic.solids import FAR, Light, Pose, View, shading, smooth_union

FRAME = (-1.55, -1.6, 1.55, 1.75)
"""Limits of a drawn head, in head units from its center: left, top, right, bottom."""
AXIS_Z = -0.25
"""Depth of the upright axis about which longitudes are measured."""
FACE_TOP = -0.56
FACE_BACK = -0.03
"""A face reaches from FACE_TOP (hairline) to the chin and back to FACE_BACK (before the ears)."""
FACE_HEIGHT = 1.56
"""Height of a face at rest in head units."""
_MIN_SCALE, _MAX_SCALE = 28.0, 150.0
_MIN_FACE = 0.04  # square head units
_PLAIN_PARTS = 2  # skull and jaw, the first of _skin_parts


@dataclass(frozen=True)
class HeadPicture:
    """A drawn head.

    Attributes:
        colors: (h, w, 3) float32, BGR in 0-255.
        alpha: (h, w) float32 in 0-1.
        face: (h, w) float32 in 0-1, the skin from hairline to chin that hair and headwear leave
            free; all zero when the head is seen from behind.
        origin: column and row of the patch's corner relative to the head's center, pixels.
        box: x0, y0, x1, y1 of the face from hairline to chin, also where hair or headwear covers
            it, relative to the head's center, pixels.
        luminance: median brightness of the face, 0-255.
        contrast: difference in brightness between the face's halves, 0-255.
    """

    colors: Floats
    alpha: Floats
    face: Floats
    origin: tuple[int, int]
    box: tuple[float, float, float, float]
    luminance: float
    contrast: float

    def lay(self, canvas: Canvas, x: float, y: float, number: int = 0) -> None:
        """Puts the head's center at (x, y) of a canvas, as face ``number`` (0: not a face)."""
        left, top = round(x) + self.origin[0], round(y) + self.origin[1]
        canvas.composite(self.colors, self.alpha, left, top, self.face if number else None, number)


def _skin_parts(look: Look) -> list[tuple[Sequence[float], Sequence[float]]]:
    """Centers and radii of the ellipsoids a bare head consists of."""
    w, jaw = look.width, look.width * look.jaw
    drop = 0.1 * look.mouth_open
    nose = look.nose_length
    parts = [
        ((0, -0.2, -0.12), (0.64 * w, 0.79, 0.82)),
        ((0, 0.2 + drop / 2, 0.08), (0.575 * jaw, 0.79 + drop / 2, 0.62)),
        ((0, 0.80 + drop, 0.38), (0.24 * jaw * look.chin, 0.19, 0.22)),
        ((0, -0.17, 0.36), (0.46 * w, 0.17, 0.34)),
        ((0, 0.12 * nose, 0.64), (0.085, 0.26 * nose, 0.16)),
        ((0, 0.02 + 0.31 * nose, 0.74), (0.11 * look.nose_width, 0.095, 0.14)),
        ((0, 0.60 + drop / 2, 0.50), (0.23, 0.13, 0.19)),
    ]
    for side in (-1, 1):
        parts.append(((0.33 * w * side, 0.24, 0.38), (0.2, 0.17, 0.16 + 0.07 * look.cheek)))
        wing = 0.1 * look.nose_width * side
        parts.append(((wing, 0.03 + 0.32 * nose, 0.66), (0.06, 0.07, 0.1)))
    return parts


# Lower edge of the hair, in head units, at these angles from the front.
_HAIRLINE_ANGLES = np.radians([0, 35, 60, 80, 95, 130, 180]).astype(np.float32)
_HAIRLINES = {
    "buzz": (-0.6, -0.56, -0.3, 0.08, -0.1, 0.45, 0.6),
    "short": (-0.6, -0.54, -0.26, 0.16, -0.05, 0.5, 0.66),
    "fringe": (-0.26, -0.24, -0.12, 0.2, 0.1, 0.6, 0.7),
    "receding": (-0.84, -0.94, -0.5, 0.1, -0.05, 0.5, 0.65),
    "medium": (-0.6, -0.5, -0.2, 0.3, 0.35, 0.75, 0.9),
    "bob": (-0.62, -0.48, -0.1, 0.85, 0.9, 1.0, 1.05),
    "long": (-0.64, -0.5, -0.12, 1.5, 1.6, 1.7, 1.8),
    "bun": (-0.66, -0.6, -0.36, 0.0, -0.1, 0.4, 0.6),
    "curly": (-0.58, -0.5, -0.2, 0.35, 0.4, 0.7, 0.8),
}
_HAIR_SWELL = {
    "buzz": 1.015,
    "short": 1.06,
    "medium": 1.11,
    "bob": 1.12,
    "long": 1.1,
    "curly": 1.34,
}


@dataclass
class _Cover:
    """Hair or headwear: a depth map, how far it covers (0-1) and its color."""

    depth: Floats
    cover: Floats
    color: Floats


def _hair(view: View, look: Look, rng: Rng) -> list[_Cover]:
    if look.hair_style == "bald" or look.headwear == "scarf":
        return []
    swell = _HAIR_SWELL.get(look.hair_style, 1.06)
    if look.headwear != "none":
        swell = min(swell, 1.06)
    rough = {"curly": 0.11, "buzz": 0.005}.get(look.hair_style, 0.03)
    cell = view.scale * (0.22 if look.hair_style == "curly" else 0.4)
    wobble = rough * noise(rng, view.height, view.width, cell, 3)
    parts = [((0, -0.24, -0.15), (0.64 * swell * look.width, 0.79 * swell, 0.84 * swell))]
    if look.hair_style == "long":
        parts.append(((0, 0.55, -0.42), (rng.uniform(0.72, 0.9), 1.15, 0.46)))
    elif look.hair_style == "bob":
        parts.append(((0, 0.22, -0.28), (rng.uniform(0.74, 0.86), 0.92, 0.56)))
    elif look.hair_style == "bun":
        parts.append(((0, -1.0, -0.4), (0.3, 0.28, 0.3)))
    elif look.hair_style == "medium":
        parts.append(((0, 0.05, -0.3), (0.74 * look.width, 0.85, 0.55)))
    knots = np.array(_HAIRLINES[look.hair_style], np.float32)
    part_side = rng.choice([-1.0, 1.0]) * rng.uniform(0, 0.12)
    depths = view.empty()
    for center, radii in parts:
        depth, window = view.ellipsoid(center, radii, wobble=wobble)
        depths[window] = np.maximum(depths[window], depth)
    x, y, z = view.head_points(depths)
    angle = np.arctan2(x, z + 0.1)
    edge = np.interp(np.abs(angle), _HAIRLINE_ANGLES, knots).astype(np.float32)
    edge += part_side * np.sin(angle) + 1.6 * wobble
    cover = np.clip((edge - y) / 0.05 + 0.5, 0, 1)
    strands = cv2.resize(
        rng.normal(0, 1, (7, 90)).astype(np.float32), (256, 64), interpolation=cv2.INTER_LINEAR
    )
    fine = cv2.remap(
        strands,
        ((angle / (2 * np.pi) + 0.5) * 255).astype(np.float32),
        np.clip((y + 1.3) / 3 * 63, 0, 63).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    shade = np.clip(1 + 0.16 * fine + 0.6 * wobble / max(rough, 0.02), 0.45, 1.7)
    color = (look.hair * 0.92 + 6) * shade[..., None]
    return [_Cover(depths, cover * (depths > FAR), color)]


def _headwear(view: View, look: Look, rng: Rng) -> list[_Cover]:
    """Caps, hats, helmets and head scarves."""
    if look.headwear == "none":
        return []
    covers = []

    def add(
        center: Sequence[float], radii: Sequence[float], low: float, shade: float = 1.0
    ) -> tuple[Floats, Floats, Floats]:
        depth = view.empty()
        part, window = view.ellipsoid(center, radii)
        depth[window] = part
        x, y, z = view.head_points(depth)
        cover = np.clip((low - 0.06 * z - y) / 0.03 + 0.5, 0, 1) * (depth > FAR)
        texture = 1 + 0.08 * noise(rng, view.height, view.width, 0.15 * view.scale, 2)
        covers.append(_Cover(depth, cover, look.gear * shade * texture[..., None]))
        return x, y, z

    w = look.width
    if look.headwear == "cap":
        add((0, -0.3, -0.12), (0.7 * w, 0.78, 0.86), -0.4)
        add((0, -0.46, 0.62), (0.5, 0.05, 0.55), 9.0, 0.8)
    elif look.headwear == "brim":
        add((0, -0.42, -0.1), (0.68 * w, 0.78, 0.84), -0.42)
        size = rng.uniform(1.0, 1.4)
        add((0, -0.46, -0.1), (size, 0.07, size), 9.0, 0.85)
    elif look.headwear == "beanie":
        add((0, -0.3, -0.14), (0.71 * w, 0.84, 0.9), -0.36)
    elif look.headwear == "helmet":
        add((0, -0.25, -0.14), (0.8 * w, 0.86, 0.98), -0.3)
    else:
        x, y, z = add((0, 0.0, -0.2), (0.78 * w, 1.12, 0.9), 9.0)
        opening = np.hypot(x / 0.56, (y - 0.2) / 0.80)
        covers[-1].cover *= np.clip((opening - 1) / 0.05 + 0.5, 0, 1) * (z > -9) + (z < 0) * 1.0
        covers[-1].cover = np.clip(covers[-1].cover, 0, 1)
        add((0, 1.15, -0.25), (0.72, 0.6, 0.62), 9.0, 0.92)
        behind = view.head_points(covers[-1].depth)
        covers[-1].cover *= (behind[1] > 0.95) | (behind[2] < 0.0)
    return covers


def draw_head(
    look: Look,
    pose: Pose,
    light: Light,
    pixels_per_unit: float,
    rng: Rng,
    *,
    featureless: bool = False,
) -> HeadPicture:
    """Draws a head.

    Args:
        look: whose.
        pose: how it is turned.
        light: what shines on it.
        pixels_per_unit: size: pixels per head unit in the result.
        rng: source of hair strands and skin unevenness.
        featureless: whether to leave out eyes, nose, mouth and all other relief, as on a dummy.

    Returns:
        The picture; a head turned away has a ``face`` of zeros and a box of no size.
    """
    scale = float(
        np.clip(1.15 * pixels_per_unit, _MIN_SCALE, max(_MAX_SCALE, pixels_per_unit * 0.8))
    )
    view = View(scale, pose.matrix, FRAME)
    skin = SkinMap(scale, look.skin) if featureless else paint_skin(look, scale, rng)
    parts = _skin_parts(look)
    bare = smooth_union(view, parts[:_PLAIN_PARTS] if featureless else parts)
    on_head = bare > FAR
    x, y, z = view.head_points(bare)
    u = np.arctan2(x, z - AXIS_Z)
    map_x = ((u + U_RANGE) * U_SCALE * skin.scale).astype(np.float32)
    map_y = ((y - V_LOW) * skin.scale).astype(np.float32)
    albedo = cv2.remap(skin.albedo, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    relief = cv2.remap(skin.relief, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    behind = np.abs(u) > U_RANGE
    albedo[behind] = look.skin
    face = on_head & (z > FACE_BACK) & (y > FACE_TOP)
    depth = np.where(on_head, bare + np.where(behind, 0, relief), FAR).astype(np.float32)
    for center, radii, turn in _flesh(look, pose):
        part, window = view.ellipsoid(center, radii, rotation=turn)
        nearer = part > depth[window]
        depth[window][nearer] = part[nearer]
        albedo[window][nearer] = look.skin * (0.94, 0.94, 0.97)
        face[window][nearer & (part > -8)] = False

    solid = depth > FAR
    gloss = np.full(depth.shape, 0.14, np.float32)
    cover_total = solid.astype(np.float32)
    bare_face = face.copy()
    for cover in _hair(view, look, rng) + _headwear(view, look, rng):
        mix = cover.cover * np.clip((cover.depth - depth) * scale * 0.5 + 0.5, 0, 1)
        albedo += mix[..., None] * (cover.color - albedo)
        over = mix > 0.5
        depth[over] = cover.depth[over]
        bare_face[over] = False
        gloss *= 1 - 0.5 * mix
        cover_total = np.maximum(cover_total, mix)

    lit = shading(depth, cover_total > 0.5, scale, light, gloss)
    linear = np.square(np.clip(albedo, 0, 255) / 255) * lit
    colors = 255 * np.sqrt(np.clip(linear, 0, 1.2))
    return _finish(np.minimum(colors, 255), cover_total, face, bare_face, scale, pixels_per_unit)


def _flesh(
    look: Look, pose: Pose
) -> list[tuple[Sequence[float], Sequence[float], NDArray[np.float64]]]:
    """Ears and neck: center, radii and rotation."""
    parts: list[tuple[Sequence[float], Sequence[float], NDArray[np.float64]]] = []
    for side in (-1, 1):
        center = (0.655 * look.width * side, 0.06, -0.16)
        parts.append((center, (0.07, 0.19 * look.ear, 0.12 * look.ear), pose.matrix))
    tilt = Pose(0.0, 0.0, 0.35 * pose.roll).matrix
    parts.append(((0, 1.2, -0.3), (0.37 * look.width * look.jaw, 0.95, 0.36), tilt))
    return parts


def _finish(
    colors: Floats,
    alpha: Floats,
    face: NDArray[np.bool_],
    bare_face: NDArray[np.bool_],
    scale: float,
    pixels_per_unit: float,
) -> HeadPicture:
    """Brings a drawing to its final scale, cuts its empty margins and measures the face."""
    ratio = pixels_per_unit / scale
    size = (max(1, round(alpha.shape[1] * ratio)), max(1, round(alpha.shape[0] * ratio)))
    way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    soft = cv2.GaussianBlur(alpha, (0, 0), 0.7)
    small_alpha = cv2.resize(soft, size, interpolation=way)
    small = cv2.resize(colors * soft[..., None], size, interpolation=way)
    small /= np.maximum(small_alpha, 1e-3)[..., None]
    origin = (round(FRAME[0] * pixels_per_unit), round(FRAME[1] * pixels_per_unit))
    cover = np.zeros_like(small_alpha)
    box, luminance, contrast = (0.0, 0.0, 0.0, 0.0), 0.0, 0.0
    if bare_face.sum() > _MIN_FACE * scale**2:
        cover = cv2.resize(bare_face.astype(np.float32), size, interpolation=way)
        rows, columns = np.nonzero(face)
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        steps = np.tile(np.divide(size, alpha.shape[::-1]), 2)
        box = tuple(float(v) for v in edges * steps + np.tile(origin, 2))
        rows, columns = np.nonzero(bare_face)
        gray = colors[rows, columns].mean(1)
        luminance = float(np.median(gray))
        middle = np.median(columns)
        halves = gray[columns < middle], gray[columns >= middle]
        contrast = float(abs(halves[0].mean() - halves[1].mean()))
    filled_rows = np.flatnonzero(small_alpha.max(1) > 0.02)
    filled_columns = np.flatnonzero(small_alpha.max(0) > 0.02)
    part = np.s_[
        filled_rows[0] : filled_rows[-1] + 1,
        filled_columns[0] : filled_columns[-1] + 1,
    ]
    corner = (origin[0] + int(filled_columns[0]), origin[1] + int(filled_rows[0]))
    return HeadPicture(
        small[part], small_alpha[part], cover[part], corner, box, luminance, contrast
    )
