"""Bodies, hands, and things held before faces. ``unit`` and ``size`` are in pixels."""

from __future__ import annotations

import numpy as np

from face_d2.synthetic.canvas import (
    Canvas,
    Fill,
    Floats,
    Rng,
    box_points,
    cloth,
    ellipse_points,
    limb_points,
    plain,
    random_color,
    skin_color,
)

__all__ = ["draw_body", "hand", "held_thing"]


def draw_body(
    canvas: Canvas, x: float, y: float, unit: float, skin: Floats, rng: Rng, *, light: float = 1.0
) -> None:
    """Clothes, arms and, where there is room, legs of a person whose head is drawn already.

    Args:
        canvas: painted on.
        x: column of the head's center.
        y: row of the head's center.
        unit: pixels per head unit.
        skin: BGR color of arms and hands.
        rng: source of clothes and posture.
        light: brightness multiplier.
    """
    dressed = cloth(rng, 0.5 * unit)

    def fabric(height: int, width: int) -> Floats:
        return dressed(height, width) * light

    at = np.array([x, y])
    wide = rng.uniform(0.8, 1.08)
    dip = rng.uniform(0.12, 0.5)
    bare = rng.random() < 0.3
    flesh = skin * min(1.0, 0.92 * light)
    half = [
        (0.0, 1.22 + dip),
        (0.2, 1.2 + 0.7 * dip),
        (0.42, 1.12),
        (0.7, 1.3),
        (1.2 * wide, 1.42),
        (1.45 * wide, 1.7),
        (1.35 * wide, 2.6),
        (1.05 * wide, 3.6),
        (1.1 * wide, 5.2),
    ]
    outline = np.array(half + [(-px, py) for px, py in half[::-1][:-1]])
    if y + 5.2 * unit < canvas.size[0]:
        trousers = random_color(rng, 0.7, 0.05, 0.7) * light
        for side in (-1, 1):
            foot = (side * rng.uniform(0.4, 1.0), 11.0)
            leg = limb_points((0.5 * side, 5.0), foot, 0.58, 0.34)
            canvas.polygon(leg * unit + at, plain(trousers, rng, 5), volume=0.4)
    canvas.polygon(outline * unit + at, fabric, volume=0.4)
    if rng.random() < 0.2:
        strap = np.array([(0.5, 1.25), (0.75, 1.3), (-0.6, 4.2), (-0.9, 4.0)])
        canvas.polygon(strap * unit + at, random_color(rng, 0.7, 0.1, 0.9) * light)
    for side in (-1, 1):
        elbow = np.array([side * wide * rng.uniform(1.4, 1.9), rng.uniform(3.1, 3.5)])
        hand = elbow - (side * rng.uniform(-0.3, 1.2), -rng.uniform(0.6, 1.6))
        upper = limb_points((1.22 * wide * side, 1.78), elbow, 0.36, 0.28)
        lower = limb_points(elbow, hand, 0.27, 0.2)
        canvas.polygon(lower * unit + at, plain(flesh, rng, 4) if bare else fabric, volume=0.4)
        canvas.polygon(upper * unit + at, fabric, volume=0.4)
        canvas.polygon(ellipse_points(hand, (0.22, 0.3)) * unit + at, flesh, volume=0.3)


def hand(
    canvas: Canvas, x: float, y: float, size: float, rng: Rng, skin: Floats | None = None
) -> None:
    """An open hand or a fist with a piece of the arm."""
    color = skin_color(rng) if skin is None else skin
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    rotate = np.array([[cos, sin], [-sin, cos]])
    length = size / 2.1
    mirror = rng.choice([-1.0, 1.0])

    def place(points: Floats) -> Floats:
        return (np.asarray(points) * (mirror, 1)) @ rotate * length + (x, y)

    fist = rng.random() < 0.3
    reach = 0.4 if fist else 1.0
    fill = plain(color, rng, 5)
    canvas.polygon(place(limb_points((0, 0.5), (0, 2.4), 0.34, 0.42)), fill, volume=0.35)
    for finger, (px, tip) in enumerate([(-0.36, 0.78), (-0.13, 0.98), (0.11, 0.92), (0.34, 0.7)]):
        spread = 0 if fist else 0.12 * (finger - 1.5)
        outline = limb_points((px, -0.05), (px + spread, -0.1 - tip * reach * 0.8), 0.125, 0.1)
        canvas.polygon(place(outline), fill, volume=0.4)
    canvas.polygon(place(ellipse_points((0, 0.2), (0.5, 0.52))), fill, volume=0.3)
    canvas.polygon(
        place(limb_points((0.4, 0.35), (0.85, -0.1 * reach), 0.15, 0.11)), fill, volume=0.4
    )
    for px in (-0.2, 0.02, 0.24):
        canvas.stroke(
            place(np.array([(px, -0.2), (px, 0.02)])), color * 0.65, 0.05 * length, alpha=0.7
        )


def held_thing(canvas: Canvas, x: float, y: float, size: float, rng: Rng, skin: Floats) -> None:
    """Draws an object in front of a face: hand, telephone, cup, microphone, book, ball or
    flower."""
    kind = rng.integers(7)
    color = random_color(rng, 0.9, 0.05, 0.95)
    tilt = rng.uniform(-0.5, 0.5)
    if kind <= 1:
        hand(canvas, x, y, size, rng, skin)
    elif kind == 2:
        _turned_box(canvas, x, y, 0.5 * size, size, tilt, plain(color * 0.3, rng))
        _turned_box(canvas, x, y, 0.42 * size, 0.8 * size, tilt, plain(color, rng, 15))
    elif kind == 3:
        half = 0.35 * size
        cup = [
            (x - half, y - 0.5 * size),
            (x + half, y - 0.5 * size),
            (x + 0.25 * size, y + 0.5 * size),
        ]
        canvas.polygon([*cup, (x - 0.25 * size, y + 0.5 * size)], plain(color, rng), volume=0.4)
    elif kind == 4:
        grip = limb_points((x, y), (x + tilt * size, y + 1.3 * size), 0.12 * size, 0.1 * size)
        canvas.polygon(grip, (35, 35, 35), volume=0.3)
        canvas.polygon(
            ellipse_points((x, y), (0.24 * size, 0.3 * size)), plain((70, 70, 70), rng, 25)
        )
    elif kind == 5:
        _turned_box(canvas, x, y, 0.9 * size, 0.7 * size, tilt, cloth(rng, 0.2 * size))
    else:
        for turn in np.linspace(0, 2 * np.pi, 7)[:-1]:
            petal = ellipse_points(
                (x + 0.25 * size * np.cos(turn), y + 0.25 * size * np.sin(turn)),
                (0.22 * size, 0.13 * size),
                turn,
            )
            canvas.polygon(petal, color, volume=0.3)
        canvas.polygon(ellipse_points((x, y), (0.12 * size, 0.12 * size)), (40, 190, 230))


def _turned_box(
    canvas: Canvas, x: float, y: float, width: float, height: float, turn: float, fill: Fill
) -> None:
    corners = box_points(-width / 2, -height / 2, width / 2, height / 2)
    cos, sin = np.cos(turn), np.sin(turn)
    canvas.polygon(corners @ np.array([[cos, sin], [-sin, cos]]) + (x, y), fill, volume=0.2)
