"""Look-alikes: things that a detector might take for a face, but a person would not.

They are balls, clocks, buttons, sockets, fruit, knots in wood, hands, dress forms, featureless
dummies and heads from behind. ``size`` is the longer side of a look-alike and ``(x, y)`` its
center, in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from face_d2.synthetic.bodies import draw_body, hand
from face_d2.synthetic.canvas import (
    Canvas,
    Fill,
    Floats,
    Rng,
    blob_points,
    box_points,
    color_from_hsv,
    ellipse_points,
    limb_points,
    noise,
    plain,
    random_color,
    skin_color,
)
from face_d2.synthetic.head import draw_head
from face_d2.synthetic.look import sample_look
from face_d2.synthetic.skin import paint_skin
from face_d2.synthetic.solids import Pose, random_light


def _shaded_ball(
    canvas: Canvas,
    x: float,
    y: float,
    radii: tuple[float, float],
    fill: Fill,
    rng: Rng,
    marks: Callable[[Floats, Floats], Floats] | None = None,
) -> None:
    """A lit ellipsoid; ``marks`` gives darkening in 0-1 from surface coordinates in -1..1."""
    rx, ry = max(2.0, radii[0]), max(2.0, radii[1])
    left, top = int(np.floor(x - rx)) - 1, int(np.floor(y - ry)) - 1
    width, height = int(2 * rx) + 4, int(2 * ry) + 4
    px = ((left + np.arange(width) + 0.5 - x) / rx).astype(np.float32)[None, :]
    py = ((top + np.arange(height) + 0.5 - y) / ry).astype(np.float32)[:, None]
    distance = np.sqrt(px * px + py * py)
    nz = np.sqrt(np.clip(1 - distance * distance, 0, 1))
    lx, ly = rng.uniform(-0.7, 0.7), rng.uniform(-0.8, 0.1)
    lit = np.clip((px * lx + py * ly + nz + 0.25) / 1.6, 0, 1) ** 0.8
    shine = np.clip(px * lx * 0.6 + py * ly * 0.6 + nz - 0.25, 0, 1) ** 20
    if callable(fill):
        colors = fill(height, width)
    else:
        colors = np.broadcast_to(np.asarray(fill, np.float32), (height, width, 3))
    if marks is not None:
        colors = colors * (1 - marks(px, py))[..., None]
    colors = colors * (0.3 + 0.8 * lit)[..., None] + 80 * rng.random() * shine[..., None]
    alpha = np.clip((1 - distance) * min(rx, ry) + 0.5, 0, 1).astype(np.float32)
    canvas.composite(colors.astype(np.float32), alpha, left, top)


def _skin_like(rng: Rng) -> Floats:
    if rng.random() < 0.65:
        return skin_color(rng)
    return random_color(rng, 0.8, 0.2, 1)


def ball(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """A ball: plain, with the lines of a basketball, patched, or with three finger holes."""
    kind = rng.integers(4)
    spin = rng.uniform(0, np.pi)
    cos, sin = np.cos(spin), np.sin(spin)

    def marks(px: Floats, py: Floats) -> Floats:
        a, b = px * cos + py * sin, py * cos - px * sin
        if kind == 1:
            lines = np.minimum(np.abs(a), np.abs(b))
            lines = np.minimum(lines, np.abs(np.hypot(np.abs(a) - 1.1, b) - 0.6))
            return 0.85 * np.clip(1.5 - lines / 0.035, 0, 1)
        if kind == 2:
            patches = np.sin(5.2 * a) * np.sin(5.2 * b + 0.5 * np.sin(3 * a))
            return 0.85 * np.clip((patches - 0.35) * 12, 0, 1)
        if kind == 3:
            holes = np.full(np.broadcast_shapes(a.shape, b.shape), 9.0, np.float32)
            for ha, hb in ((-0.22, -0.3), (0.12, -0.38), (0.0, 0.05)):
                holes = np.minimum(holes, np.hypot(a - ha, b - hb))
            return 0.9 * np.clip(1.5 - holes / 0.1, 0, 1)
        return np.zeros(np.broadcast_shapes(px.shape, py.shape), np.float32)

    color = (40, 110, 215) if kind == 1 and rng.random() < 0.5 else _skin_like(rng)
    _shaded_ball(canvas, x, y, (size / 2, size / 2), color, rng, marks)


def oval(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """A featureless oval in a skin color: an egg, a potato, a stone, a balloon."""
    narrow = rng.uniform(0.65, 0.9)
    color = _skin_like(rng)
    if rng.random() < 0.4:
        _shaded_ball(canvas, x, y, (narrow * size / 2, size / 2), plain(color, rng, 12), rng)
        if rng.random() < 0.4:
            line = [(x, y + size / 2), (x + 0.1 * size, y + size), (x, y + 1.6 * size)]
            canvas.stroke(line, (60, 60, 60), max(0.7, 0.02 * size))
    else:
        outline = blob_points(rng, (x, y), (narrow * size / 2, size / 2), 0.12)
        canvas.polygon(outline, plain(color, rng, 16), volume=0.5)


def fruit(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """An apple, orange or peach with a stalk, sometimes with spots."""
    color = color_from_hsv(rng.uniform(-0.03, 0.13), rng.uniform(0.3, 0.85), rng.uniform(0.55, 1))
    phase = rng.uniform(0, 6.28, 4)

    def marks(px: Floats, py: Floats) -> Floats:
        spots = np.sin(9 * px + phase[0]) * np.sin(8 * py + phase[1])
        spots = spots * np.sin(5 * px - 6 * py + phase[2])
        return 0.5 * np.clip((spots - 0.55) * 6, 0, 1)

    _shaded_ball(canvas, x, y, (size / 2, 0.46 * size), color, rng, marks)
    stalk = [(x, y - 0.4 * size), (x + 0.06 * size, y - 0.55 * size)]
    canvas.stroke(stalk, (25, 45, 60), max(1.0, 0.05 * size))


def clock(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """A round clock with marks and hands."""
    radius = size / 2
    canvas.polygon(ellipse_points((x, y), (radius, radius)), random_color(rng, 0.8, 0.05, 0.7))
    dial = skin_color(rng) if rng.random() < 0.4 else random_color(rng, 0.15, 0.75, 1)
    canvas.polygon(ellipse_points((x, y), (0.88 * radius, 0.88 * radius)), plain(dial, rng, 4))
    ink = random_color(rng, 0.5, 0, 0.25)
    for turn in np.linspace(0, 2 * np.pi, 13)[:-1]:
        ray = np.array([np.sin(turn), -np.cos(turn)])
        line = [ray * 0.66 * radius + (x, y), ray * 0.8 * radius + (x, y)]
        canvas.stroke(line, ink, max(0.8, 0.05 * radius))
    for length, weight in ((0.45, 0.09), (0.7, 0.06)):
        turn = rng.uniform(0, 2 * np.pi)
        tip = (x + length * radius * np.sin(turn), y - length * radius * np.cos(turn))
        canvas.stroke([(x, y), tip], ink, max(0.8, weight * radius))


def holed_plate(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """A button with two or four holes, a socket with two, a plate with screws."""
    radius = size / 2
    color = _skin_like(rng)
    kind = rng.integers(3)
    ink = color * 0.2
    spin = rng.uniform(0, np.pi)
    if kind == 2:
        h = radius * rng.uniform(0.8, 1)
        canvas.polygon(
            box_points(x - radius, y - h, x + radius, y + h), plain(color, rng, 5), volume=0.3
        )
        spin = 0.0
    else:
        _shaded_ball(canvas, x, y, (radius, radius), color, rng)
        canvas.polygon(
            ellipse_points((x, y), (0.7 * radius, 0.7 * radius)), plain(color * 0.9, rng, 4)
        )
    gap = radius * rng.uniform(0.22, 0.36)
    turns = spin + np.arange(2 if kind != 1 else 4) * (np.pi if kind != 1 else np.pi / 2)
    for turn in turns:
        spot = (x + gap * np.cos(turn), y + gap * np.sin(turn))
        canvas.polygon(ellipse_points(spot, (0.11 * radius, 0.11 * radius)), ink)


def knot(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """A board with a knot of rings, or two."""
    half = size / 2
    color = color_from_hsv(rng.uniform(0.04, 0.1), rng.uniform(0.3, 0.65), rng.uniform(0.5, 0.95))
    stretch = rng.uniform(0.6, 1.0)
    centers = rng.uniform(-0.3, 0.3, (rng.integers(1, 3), 2))
    warp = rng.uniform(0, 6.28)

    def rings(height: int, width: int) -> Floats:
        px = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        py = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        field = 2.2 * px + 0.2 * np.sin(4 * py + warp)
        for cx, cy in centers:
            far = np.hypot((px - cx) * 1.7, py - cy)
            field = field + 1.2 * np.exp(-3 * far * far) * np.sign(px - cx + 1e-3)
            field = np.where(far < 0.33, 4 * far, field)
        tone = 0.85 + 0.15 * np.sin(14 * field) + 0.05 * noise(rng, height, width, 6)
        return color * tone[..., None]

    canvas.polygon(box_points(x - stretch * half, y - half, x + stretch * half, y + half), rings)


def dummy(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """A shop-window dummy's bald, featureless head; small ones would look like faces."""
    size = max(size, 48.0)
    look = sample_look(rng)
    color = _skin_like(rng)
    unit = size / 2.1
    light = random_light(rng)
    pose = Pose(rng.uniform(-1.2, 1.2), rng.normal(0, 0.2), rng.normal(0, 0.25))
    bare = replace(look, skin=color, hair_style="bald", mouth_open=0.0)
    draw_head(bare, pose, light, unit, rng, featureless=True).lay(canvas, x, y)
    if rng.random() < 0.6:
        draw_body(canvas, x, y, unit, color, rng)


def jumble(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """A ball or card printed with shuffled scraps of a face; small ones would look like faces."""
    size = max(size, 36.0)
    look = replace(sample_look(rng), glasses="none", masked=False)
    side = int(max(48, min(160, size)))
    printed = paint_skin(look, side / 2.2, rng).albedo
    printed = cv2.resize(printed, (side, side), interpolation=cv2.INTER_AREA)
    parts = 7
    cut = side // parts
    order = rng.permutation(parts * parts)
    shuffled = printed.copy()
    for target, source in enumerate(order):
        ty, tx = divmod(target, parts)
        sy, sx = divmod(int(source), parts)
        piece = printed[sy * cut : (sy + 1) * cut, sx * cut : (sx + 1) * cut]
        piece = np.rot90(piece, int(rng.integers(4)))
        shuffled[ty * cut : (ty + 1) * cut, tx * cut : (tx + 1) * cut] = piece

    def fill(height: int, width: int) -> Floats:
        return cv2.resize(shuffled, (width, height), interpolation=cv2.INTER_LINEAR)

    _shaded_ball(canvas, x, y, (rng.uniform(0.7, 1) * size / 2, size / 2), fill, rng)


def head_from_behind(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """A person seen from behind."""
    unit = size / 2.1
    look = sample_look(rng)
    yaw = np.pi + rng.uniform(-0.6, 0.6)
    pose = Pose(yaw, rng.normal(0, 0.15), rng.normal(0, 0.12))
    light = random_light(rng)
    draw_head(look, pose, light, unit, rng).lay(canvas, x, y)
    draw_body(canvas, x, y, unit, look.skin, rng)


def dress_form(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """Clothes on a stand without a head."""
    unit = size / 4.2
    color = skin_color(rng)
    canvas.polygon(
        limb_points((x, y - 2.2 * unit), (x, y - 1.5 * unit), 0.3 * unit, 0.36 * unit),
        color,
        volume=0.4,
    )
    draw_body(canvas, x, y - 3.2 * unit, unit, color, rng)


def spectacles(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """A pair of glasses lying by itself."""
    ink = random_color(rng, 0.8, 0, 0.5)
    weight = max(1.0, 0.05 * size)
    for side in (-1, 1):
        lens = ellipse_points((x + side * 0.26 * size, y), (0.21 * size, 0.15 * size))
        if rng.random() < 0.5:
            canvas.polygon(lens, (35, 30, 28), alpha=0.8)
        canvas.stroke(lens, ink, weight, closed=True)
    canvas.stroke([(x - 0.05 * size, y), (x + 0.05 * size, y)], ink, weight)


def arm(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """A bare arm or leg."""
    turn = rng.uniform(0, 2 * np.pi)
    ray = 0.5 * size * np.array([np.cos(turn), np.sin(turn)])
    ends = np.array([x, y]) - ray, np.array([x, y]) + ray
    outline = limb_points(*ends, 0.2 * size, 0.13 * size)
    canvas.polygon(outline, plain(skin_color(rng), rng, 8), volume=0.4)


LOOKALIKES: dict[Callable[[Canvas, float, float, float, Rng], None], float] = {
    ball: 0.13,
    oval: 0.12,
    fruit: 0.09,
    clock: 0.08,
    holed_plate: 0.13,
    knot: 0.06,
    dummy: 0.08,
    jumble: 0.05,
    head_from_behind: 0.13,
    dress_form: 0.03,
    spectacles: 0.03,
    arm: 0.05,
    hand: 0.05,
}
"""Painters of look-alikes and how often each is chosen."""


def draw_lookalike(canvas: Canvas, x: float, y: float, size: float, rng: Rng) -> None:
    """Draws a look-alike of a random kind."""
    odds = np.array(list(LOOKALIKES.values()))
    painter = list(LOOKALIKES)[rng.choice(len(odds), p=odds / odds.sum())]
    painter(canvas, x, y, size, rng)
