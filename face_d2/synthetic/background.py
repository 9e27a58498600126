"""Backgrounds of the synthetic pictures: rooms, streets, foliage, landscapes, textures and clutter.

Each painter fills a whole :class:`~face_d2.synthetic.canvas.Canvas`. None paints a face.
"""

from __future__ import annotations

import cv2
import numpy as np

from face_d2.synthetic.canvas import (
    Canvas,
    Floats,
    Rng,
    blob_points,
    box_points,
    cloth,
    color_from_hsv,
    ellipse_points,
    noise,
    plain,
    random_color,
    skin_color,
)


def paint_background(canvas: Canvas, rng: Rng) -> None:
    """Fills the canvas with a random kind of background and some clutter."""
    kinds = (room, street, foliage, landscape, stands, shelves, texture, studio)
    odds = np.array([0.2, 0.2, 0.15, 0.13, 0.08, 0.08, 0.08, 0.08])
    kind = kinds[rng.choice(len(kinds), p=odds / odds.sum())]
    kind(canvas, rng)
    clutter(canvas, rng, int(rng.integers(2, 14)))
    if rng.random() < 0.4:
        blur = rng.uniform(0.4, 2.5) * canvas.size[1] / 448
        canvas.image[:] = cv2.GaussianBlur(canvas.image, (0, 0), blur)


def _fill(canvas: Canvas, colors: Floats) -> None:
    canvas.image[:] = np.clip(colors, 0, 255).astype(np.uint8)


def _warm(rng: Rng) -> Floats:
    """Colors like skin: wood, brick, sand, walls."""
    if rng.random() < 0.4:
        return skin_color(rng)
    return color_from_hsv(rng.uniform(0.02, 0.12), rng.uniform(0.15, 0.65), rng.uniform(0.3, 0.95))


def room(canvas: Canvas, rng: Rng) -> None:
    """A wall and a floor with windows, pictures, curtains, furniture and lamps."""
    height, width = canvas.size
    wall = _warm(rng) if rng.random() < 0.5 else random_color(rng, 0.35, 0.35, 0.95)
    _fill(canvas, plain(wall, rng, 8)(height, width))
    floor = height * rng.uniform(0.6, 0.95)
    canvas.polygon(box_points(0, floor, width, height), cloth_or_wood(rng, width))
    for _ in range(rng.integers(1, 6)):
        w, h = width * rng.uniform(0.08, 0.3), height * rng.uniform(0.1, 0.4)
        x, y = rng.uniform(-0.1, 1) * width, rng.uniform(0, 0.5) * height
        frame = random_color(rng, 0.6, 0.1, 0.9)
        kind = rng.integers(3)
        canvas.polygon(box_points(x - 3, y - 3, x + w + 3, y + h + 3), frame)
        inner = cloth(rng, 0.06 * width)
        if kind == 0:
            inner = plain(np.array((250, 235, 220)) * rng.uniform(0.7, 1), rng, 15)
        canvas.polygon(box_points(x, y, x + w, y + h), inner)
        if kind == 0:
            for part in np.linspace(0, 1, rng.integers(2, 5))[1:-1]:
                line = [(x + part * w, y), (x + part * w, y + h)]
                canvas.stroke(line, frame, max(1.5, 0.006 * width))
    if rng.random() < 0.4:
        x, w = rng.uniform(0, 1) * width, width * rng.uniform(0.08, 0.25)
        stripes = cloth(rng, 0.02 * width)
        canvas.polygon(box_points(x, 0, x + w, floor), stripes, volume=0.2)
    for _ in range(rng.integers(0, 5)):
        w, h = width * rng.uniform(0.1, 0.45), height * rng.uniform(0.06, 0.3)
        x = rng.uniform(-0.2, 1) * width
        y = floor - h * rng.uniform(0, 0.7)
        canvas.polygon(box_points(x, y, x + w, y + h), cloth_or_wood(rng, width), volume=0.25)


def cloth_or_wood(rng: Rng, width: int):
    """Chooses one of three textures at random: wood, cloth or plain paint.

    Args:
        rng: source of the random numbers.
        width: width of the picture in pixels, which sets the scale of the pattern.

    Returns:
        A fill for :meth:`Canvas.polygon`.
    """
    kind = rng.integers(3)
    if kind == 0:
        return wood(rng, width)
    return cloth(rng, 0.05 * width) if kind == 1 else plain(_warm(rng), rng, 10)


def wood(rng: Rng, width: int):
    """A texture of planks with grain."""
    color = color_from_hsv(rng.uniform(0.04, 0.1), rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.9))
    plank = rng.uniform(0.05, 0.15) * width
    level = rng.random()

    def paint(rows: int, columns: int) -> Floats:
        grain = noise(rng, rows, max(2, columns // 12), 6, 3)
        grain = cv2.resize(grain, (columns, rows), interpolation=cv2.INTER_LINEAR)
        y = np.arange(rows, dtype=np.float32)[:, None] / plank + level
        seam = ((y % 1) < 0.05).astype(np.float32)
        tone = 1 + 0.12 * np.sin(37.0 * np.floor(y)) + 0.14 * grain - 0.45 * seam
        return color * np.broadcast_to(tone, (rows, columns))[..., None]

    return paint


def street(canvas: Canvas, rng: Rng) -> None:
    """Sky, house fronts with rows of windows, signs, a road and cars."""
    height, width = canvas.size
    _sky(canvas, rng)
    ground = height * rng.uniform(0.55, 0.9)
    x = -rng.uniform(0, 0.2) * width
    while x < width:
        w = width * rng.uniform(0.15, 0.5)
        top = height * rng.uniform(-0.2, 0.4)
        wall = _warm(rng) if rng.random() < 0.5 else random_color(rng, 0.4, 0.2, 0.9)
        canvas.polygon(box_points(x, top, x + w, ground), plain(wall, rng, 10))
        step_x, step_y = width * rng.uniform(0.03, 0.09), height * rng.uniform(0.06, 0.13)
        glass = random_color(rng, 0.4, 0.05, 0.6)
        wide, tall = rng.uniform(0.4, 0.75, 2)
        for wy in np.arange(top + 0.3 * step_y, ground - step_y, step_y):
            for wx in np.arange(x + 0.2 * step_x, x + w - 0.8 * step_x, step_x):
                color = glass * rng.uniform(0.6, 1.4)
                canvas.polygon(box_points(wx, wy, wx + wide * step_x, wy + tall * step_y), color)
        x += w
    road = plain(random_color(rng, 0.15, 0.25, 0.6), rng, 10)
    canvas.polygon(box_points(0, ground, width, height), road)
    for _ in range(rng.integers(0, 4)):
        _sign(canvas, rng)
    for _ in range(rng.integers(0, 4)):
        _car(canvas, rng, ground)


def _sky(canvas: Canvas, rng: Rng) -> None:
    height, width = canvas.size
    top = color_from_hsv(rng.uniform(0.53, 0.63), rng.uniform(0, 0.6), rng.uniform(0.5, 1))
    low = color_from_hsv(rng.uniform(0.05, 0.6), rng.uniform(0, 0.3), rng.uniform(0.7, 1))
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    clouds = np.clip(noise(rng, height, width, 0.4 * width, 5) * 1.5, 0, 0.7)[..., None]
    colors = top + ramp * (low - top)
    _fill(canvas, colors + clouds * (245 - colors))


def _sign(canvas: Canvas, rng: Rng) -> None:
    height, width = canvas.size
    w, h = width * rng.uniform(0.08, 0.35), height * rng.uniform(0.04, 0.12)
    x, y = rng.uniform(-0.05, 0.9) * width, rng.uniform(0.02, 0.8) * height
    canvas.polygon(box_points(x, y, x + w, y + h), random_color(rng, 0.9, 0.1, 1))
    _text(canvas, rng, x + 0.05 * w, y + 0.15 * h, 0.9 * w, 0.7 * h)


def _text(canvas: Canvas, rng: Rng, x: float, y: float, w: float, h: float) -> None:
    """A row of strokes that looks like writing."""
    color = random_color(rng, 0.8, 0, 1)
    step = 0.62 * h
    for left in np.arange(x, x + w - step, step):
        if rng.random() < 0.12:
            continue
        points = np.array([left, y]) + rng.uniform(0, 1, (rng.integers(2, 5), 2)) * (0.75 * step, h)
        canvas.stroke(points, color, max(0.8, 0.14 * h))


def _car(canvas: Canvas, rng: Rng, ground: float) -> None:
    height, width = canvas.size
    size = width * rng.uniform(0.15, 0.4)
    x, y = rng.uniform(-0.2, 0.9) * width, ground + rng.uniform(0.0, 0.1) * height
    paint = random_color(rng, 0.9, 0.05, 0.95)
    body = np.array(
        [
            (0, 0),
            (0.02, -0.16),
            (0.2, -0.19),
            (0.32, -0.34),
            (0.68, -0.34),
            (0.82, -0.18),
            (1, -0.14),
            (1, 0),
        ]
    )
    canvas.polygon(body * size + (x, y), plain(paint, rng, 8), volume=0.35)
    glass = np.array([(0.26, -0.19), (0.35, -0.31), (0.65, -0.31), (0.75, -0.19)])
    canvas.polygon(glass * size + (x, y), (70, 60, 50))
    for wheel in (0.2, 0.8):
        center = (x + wheel * size, y)
        canvas.polygon(ellipse_points(center, (0.085 * size, 0.085 * size)), (25, 25, 25))
        canvas.polygon(ellipse_points(center, (0.045 * size, 0.045 * size)), (150, 150, 150))


def foliage(canvas: Canvas, rng: Rng) -> None:
    """Sky or shade behind layers of leaves, trunks and grass."""
    height, width = canvas.size
    if rng.random() < 0.5:
        _sky(canvas, rng)
    else:
        _fill(
            canvas, plain(color_from_hsv(0.3, 0.5, rng.uniform(0.1, 0.5)), rng, 25)(height, width)
        )
    for _ in range(rng.integers(0, 4)):
        x, w = rng.uniform(0, 1) * width, width * rng.uniform(0.015, 0.06)
        canvas.polygon(box_points(x, 0, x + w, height), wood(rng, width), volume=0.4)
    base_hue = rng.uniform(0.16, 0.38)
    for layer in range(3):
        value = 0.25 + 0.2 * layer + rng.uniform(-0.1, 0.1)
        clump = noise(rng, height, width, 0.3 * width, 3)
        size = width * rng.uniform(0.006, 0.022)
        for _ in range(260):
            x, y = rng.uniform(0, 1, 2) * (width, height)
            if clump[int(y), int(x)] < 0.05:
                continue
            hue = base_hue + rng.normal(0, 0.02)
            color = color_from_hsv(
                hue, rng.uniform(0.3, 0.8), np.clip(value * rng.uniform(0.6, 1.4), 0, 1)
            )
            axes = (max(1, int(size * rng.uniform(0.7, 1.6))), max(1, int(size * 0.5)))
            center = (int(x), int(y))
            tone = tuple(float(c) for c in color)
            cv2.ellipse(
                canvas.image, center, axes, rng.uniform(0, 180), 0, 360, tone, -1, cv2.LINE_AA
            )
    grass = height * rng.uniform(0.6, 1.1)
    if grass < height:
        color = color_from_hsv(base_hue, rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7))
        canvas.polygon(box_points(0, grass, width, height), plain(color, rng, 30), soft=2)


def landscape(canvas: Canvas, rng: Rng) -> None:
    """Sky, hills, then water, sand or field."""
    height, width = canvas.size
    _sky(canvas, rng)
    horizon = height * rng.uniform(0.35, 0.7)
    for layer in range(rng.integers(1, 4)):
        x = np.linspace(0, width, 40)
        ridge = horizon - height * 0.15 * np.abs(noise(rng, 2, 40, 14, 3)[0]) * (2 - 0.5 * layer)
        outline = np.concatenate([np.stack([x, ridge], 1), [(width, height), (0, height)]])
        color = color_from_hsv(
            rng.uniform(0.08, 0.65), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.7)
        )
        canvas.polygon(outline, plain(color, rng, 14))
    low = horizon + height * rng.uniform(0, 0.1)
    ground = _warm(rng) if rng.random() < 0.5 else random_color(rng, 0.5, 0.2, 0.8)
    rows, columns = int(height - low) + 1, width
    ripple = cv2.resize(noise(rng, rows, 24, 8, 3), (columns, rows))
    canvas.polygon(
        box_points(0, low, width, height),
        lambda h, w: ground + 35 * cv2.resize(ripple, (w, h))[..., None],
    )


def stands(canvas: Canvas, rng: Rng) -> None:
    """Rows of seats, as in a stadium or a hall."""
    height, width = canvas.size
    _fill(canvas, plain(random_color(rng, 0.3, 0.1, 0.6), rng, 10)(height, width))
    seat = random_color(rng, 0.9, 0.2, 0.9)
    y, step = 0.0, height * rng.uniform(0.035, 0.06)
    while y < height:
        for x in np.arange(rng.uniform(-step, 0), width, 1.1 * step):
            tone = seat * rng.uniform(0.75, 1.2)
            canvas.polygon(box_points(x, y, x + 0.85 * step, y + 0.7 * step), tone)
        y += step
        step *= rng.uniform(1.03, 1.12)


def shelves(canvas: Canvas, rng: Rng) -> None:
    """Shelves full of books, boxes, jars and fruit."""
    height, width = canvas.size
    board = wood(rng, width)
    _fill(canvas, board(height, width) * 0.5)
    step = height * rng.uniform(0.12, 0.3)
    for y in np.arange(-rng.uniform(0, step), height, step):
        x = 0.0
        while x < width:
            w = width * rng.uniform(0.012, 0.07)
            tall = step * rng.uniform(0.5, 0.85)
            top = y + 0.92 * step - tall
            color = _warm(rng) if rng.random() < 0.3 else random_color(rng, 0.9, 0.1, 0.95)
            if rng.random() < 0.25:
                center = (x + w / 2, y + 0.92 * step - w / 2)
                canvas.polygon(ellipse_points(center, (w / 2, w / 2)), color, volume=0.45)
            else:
                canvas.polygon(box_points(x, top, x + w, y + 0.92 * step), color, volume=0.2)
                if w > 12:
                    _text(
                        canvas,
                        rng,
                        x + 0.1 * w,
                        top + 0.2 * tall,
                        0.8 * w,
                        min(0.2 * tall, 0.4 * w),
                    )
            x += w * rng.uniform(1.0, 1.15)
        canvas.polygon(box_points(0, y + 0.92 * step, width, y + step), board)


def texture(canvas: Canvas, rng: Rng) -> None:
    """Bricks, tiles, planks or cloth, filling the picture."""
    height, width = canvas.size
    kind = rng.integers(3)
    if kind == 0:
        _fill(canvas, wood(rng, width)(height, width))
    elif kind == 1:
        _fill(canvas, cloth(rng, 0.08 * width)(height, width))
    else:
        color, joint = _warm(rng), random_color(rng, 0.2, 0.3, 0.9)
        _fill(canvas, plain(joint, rng, 8)(height, width))
        h = height * rng.uniform(0.03, 0.09)
        w = h * rng.uniform(1, 2.6)
        gap = max(1.0, 0.08 * h)
        for row, y in enumerate(np.arange(0, height, h)):
            for x in np.arange(-w * (0.5 * (row % 2)), width, w):
                tone = color * rng.uniform(0.75, 1.2)
                canvas.polygon(box_points(x, y, x + w - gap, y + h - gap), tone)
        grain = 14 * noise(rng, height, width, 20, 4)
        _fill(canvas, canvas.image + grain[..., None])


def studio(canvas: Canvas, rng: Rng) -> None:
    """A backdrop with a glow, or lights out of focus."""
    height, width = canvas.size
    first, second = random_color(rng, 0.7, 0.05, 0.9), random_color(rng, 0.7, 0.2, 1)
    x = (np.arange(width, dtype=np.float32)[None, :] / width - rng.uniform(0.2, 0.8)) ** 2
    y = (np.arange(height, dtype=np.float32)[:, None] / height - rng.uniform(0.2, 0.8)) ** 2
    glow = np.exp(-(x + y) * rng.uniform(2, 8))[..., None]
    _fill(canvas, first + glow * (second - first) + 6 * noise(rng, height, width, 40)[..., None])
    if rng.random() < 0.6:
        for _ in range(rng.integers(10, 50)):
            center = rng.uniform(0, 1, 2) * (width, height)
            radius = width * rng.uniform(0.008, 0.05)
            glow_color = random_color(rng, 0.8, 0.5, 1)
            canvas.polygon(ellipse_points(center, (radius, radius)), glow_color, alpha=0.5, soft=1)


def clutter(canvas: Canvas, rng: Rng, count: int) -> None:
    """Scatters ``count`` plain things: poles, cables, blobs, boxes, writing, polygons."""
    height, width = canvas.size
    for _ in range(count):
        center = rng.uniform(0, 1, 2) * (width, height)
        size = width * np.exp(rng.uniform(np.log(0.015), np.log(0.2)))
        color = _warm(rng) if rng.random() < 0.35 else random_color(rng, 0.9, 0.05, 1)
        kind = rng.integers(7)
        if kind == 0:
            x, w = center[0], width * rng.uniform(0.005, 0.025)
            canvas.polygon(
                box_points(x, rng.uniform(-0.2, 0.5) * height, x + w, height), color, volume=0.4
            )
        elif kind == 1:
            knots = rng.uniform(-0.1, 1.1, (4, 2)) * (width, height)
            t = np.linspace(0, 1, 30)[:, None]
            curve = (1 - t) ** 3 * knots[0] + 3 * t * (1 - t) ** 2 * knots[1]
            curve += 3 * t * t * (1 - t) * knots[2] + t**3 * knots[3]
            canvas.stroke(curve, color, rng.uniform(0.6, 3.5))
        elif kind == 2:
            outline = blob_points(rng, center, (size * 0.6, size * rng.uniform(0.3, 0.9)), 0.3)
            canvas.polygon(outline, plain(color, rng, 12), volume=rng.uniform(0, 0.5))
        elif kind == 3:
            w, h = size * rng.uniform(0.5, 1.5), size * rng.uniform(0.5, 1.5)
            left, top = center[0] - w / 2, center[1] - h / 2
            corners = box_points(left, top, left + w, top + h)
            fill = cloth(rng, 0.3 * size) if rng.random() < 0.5 else plain(color, rng, 8)
            canvas.polygon(corners, fill, volume=rng.uniform(0, 0.4))
        elif kind == 4:
            _text(canvas, rng, *(center - size / 2), size * 2, max(4.0, 0.25 * size))
        elif kind == 5:
            corners = center + size * rng.uniform(-0.8, 0.8, (rng.integers(3, 6), 2))
            canvas.polygon(corners, color, alpha=rng.uniform(0.4, 1))
        else:
            axes = (size * rng.uniform(0.2, 0.5), size * rng.uniform(0.2, 0.5))
            canvas.polygon(
                ellipse_points(center, axes, rng.uniform(0, 3)), plain(color, rng), volume=0.5
            )
