"""Composition of one synthetic picture: who stands where, in which light, and the camera.

:func:`draw_scene` returns a picture with its faces as WIDER FACE would annotate them. The
attributes are read off what was drawn:

* blur: width of the blur on the face (defocus and the pixel grid) relative to the face's height;
  0 below 1.5 %, 1 below 4 %, else 2.
* expression: 1 with the mouth wide open.
* illumination: 1 when the face is nearly black, nearly white or lit from one side only.
* occlusion, as WIDER FACE defines it: 0 up to 1 % of the face hidden (by things, other people or
  the picture's edge), 1 up to 30 %, else 2. Hair does not count; sunglasses are partial, a cloth
  mask is heavy occlusion.
* pose: 1 with roll or pitch above 30 degrees or a profile (yaw above 60 degrees).
* invalid: 1 when less than a fifth of the face is left to see. Below 6 % it is not annotated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from face_d2.synthetic.background import paint_background
from face_d2.synthetic.bodies import draw_body, hand, held_thing
from face_d2.synthetic.canvas import Canvas, Rng, noise
from face_d2.synthetic.head import FACE_HEIGHT, draw_head
from face_d2.synthetic.look import Look, sample_look
from face_d2.synthetic.lookalikes import draw_lookalike, head_from_behind
from face_d2.synthetic.solids import Light, Pose, random_light

EVENTS = ("0--Portrait", "1--Group", "2--Crowd", "3--Street", "4--Stage", "5--Still_Life")
"""Kinds of scenes; the last has look-alikes and no face."""
_EVENT_ODDS = (0.22, 0.21, 0.13, 0.22, 0.09, 0.13)
MIN_FACE, MAX_FACE = 8.0, 300.0
"""Bounds of a face's longer side in pixels."""
_LARGEST = MAX_FACE / 1.2
"""Height of the largest face at rest; an open mouth or a tilt adds to it."""
_BLUR_STEPS = (0.015, 0.04)
_MAX_BLUR = 0.07
_BLUR_BASIS = 25.0  # stands in for the smallest face where there is none


@dataclass(frozen=True)
class Picture:
    """A finished picture.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        event: one of EVENTS.
        boxes: (N, 4) int64, XYWH in pixels, inside the image.
        attributes: (N, 6) int64: blur, expression, illumination, invalid, occlusion, pose.
        jpeg_quality: quality to store it with, 0-100.
    """

    image: NDArray[np.uint8]
    event: str
    boxes: NDArray[np.int64]
    attributes: NDArray[np.int64]
    jpeg_quality: int


@dataclass(frozen=True)
class _Face:
    """A face on the canvas, before the camera."""

    number: int
    box: tuple[float, float, float, float]
    area: float
    look: Look
    pose: Pose
    extreme_light: bool


class Stage:
    """A canvas with its light and the faces drawn so far; later ones are nearer.

    Attributes:
        canvas: painted on.
        light: shines on everybody.
        extreme: whether that light is an extreme one.
        rng: source of people.
        faces: what was drawn, numbered from 1 in the canvas's ``owner``.
        blurs: sigma in pixels of the blur on each of the first ``len(blurs)`` faces.
    """

    def __init__(self, canvas: Canvas, light: Light, extreme: bool, rng: Rng) -> None:
        self.canvas = canvas
        self.light = light
        self.extreme = extreme
        self.rng = rng
        self.faces: list[_Face] = []
        self.blurs: list[float] = []

    def person(
        self,
        x: float,
        y: float,
        height: float,
        *,
        look: Look | None = None,
        pose: Pose | None = None,
    ) -> None:
        """Draws a person, by default a random one.

        Args:
            x: column of the head's center.
            y: row of the head's center.
            height: pixels from hairline to chin of such a face held upright.
            look: who it is.
            pose: how the head is held.
        """
        rng = self.rng
        look = look or sample_look(rng)
        pose = pose or random_pose(rng)
        unit = height / FACE_HEIGHT
        picture = draw_head(look, pose, self.light, unit, rng)
        number = len(self.faces) + 1
        picture.lay(self.canvas, x, y, number)
        brightness = float(np.sqrt(self.light.ambient + 0.7 * self.light.key))
        draw_body(self.canvas, x, y, unit, look.skin, rng, light=brightness)
        box = tuple(v + round(c) for v, c in zip(picture.box, (x, y, x, y)))
        dim = picture.luminance < 38 or picture.luminance > 246
        one_sided = picture.contrast > 75
        extreme = dim or one_sided or (self.extreme and picture.contrast > 55)
        area = float((picture.face > 0.5).sum())
        self.faces.append(_Face(number, box, area, look, pose, extreme))

    def defocus(self, sigma: float) -> None:
        """Blurs all that is drawn so far; what is drawn later is in focus.

        The blur stays within _MAX_BLUR of the smallest face, so that a face can still be told
        from a look-alike.
        """
        smallest = min((face.box[3] - face.box[1] for face in self.faces), default=_BLUR_BASIS)
        sigma = min(sigma, _MAX_BLUR * smallest)
        self.canvas.image[:] = cv2.GaussianBlur(self.canvas.image, (0, 0), sigma)
        missing = len(self.faces) - len(self.blurs)
        self.blurs = [float(np.hypot(blur, sigma)) for blur in self.blurs] + [sigma] * missing

    def obstruct(self, face: _Face) -> None:
        """Puts a hand or a thing before part of a face."""
        rng = self.rng
        x0, y0, x1, y1 = face.box
        size = (y1 - y0) * rng.uniform(0.4, 0.9)
        x = rng.uniform(x0, x1)
        y = y0 + (y1 - y0) * rng.uniform(0.45, 1.15)
        held_thing(self.canvas, x, y, size, rng, face.look.skin)


def random_pose(rng: Rng) -> Pose:
    """Mostly toward the camera; one in six in profile, some heads tilted far."""
    yaw = rng.normal(0, 0.38)
    if rng.random() < 0.17:
        yaw = rng.choice([-1.0, 1.0]) * rng.uniform(0.8, 1.57)
    pitch = float(np.clip(rng.normal(0.03, 0.17), -0.6, 0.6))
    roll = rng.normal(0, 0.14)
    if rng.random() < 0.06:
        roll = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.2)
    return Pose(float(np.clip(yaw, -1.57, 1.57)), pitch, float(roll))


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(max(high, low * 1.01)))))


def _portrait(stage: Stage) -> None:
    rng = stage.rng
    height, width = stage.canvas.size
    if rng.random() < 0.5:
        _bystanders(stage, int(rng.integers(1, 4)), 10, 60)
        if rng.random() < 0.6:
            stage.defocus(rng.uniform(0.5, 2.5) * width / 448)
    count = 1 if rng.random() < 0.6 else 2
    for index in range(count):
        size = min(_log_uniform(rng, 60, _LARGEST), 0.62 * height, 0.9 * width / count)
        x = width * (index + rng.uniform(0.3, 0.7)) / count
        y = rng.uniform(0.62 * size, max(0.63 * size, height - 0.62 * size))
        stage.person(x, y, size)


def _group(stage: Stage) -> None:
    rng = stage.rng
    height, width = stage.canvas.size
    count = int(rng.integers(3, 11))
    rows = 1 if count < 6 else int(rng.integers(1, 4))
    size = min(_log_uniform(rng, 20, 110), 1.05 * width * rows / count, 0.3 * height)
    y = rng.uniform(0.8 * size, max(0.85 * size, 0.55 * height))
    for _ in range(rows):
        members = int(np.ceil(count / rows))
        places = (np.arange(members) + rng.uniform(0.25, 0.75, members)) / members * width
        for x in rng.permutation(places):
            own = size * rng.uniform(0.82, 1.18)
            own_y = y + rng.normal(0, 0.25) * size
            if rng.random() < 0.07:
                head_from_behind(stage.canvas, x, own_y, 1.3 * own, rng)
            else:
                stage.person(x, own_y, own)
        y += 1.55 * size * rng.uniform(0.8, 1.2)
        size *= rng.uniform(1.0, 1.25)
        if y > height - 0.4 * size:
            break


def _crowd(stage: Stage) -> None:
    rng = stage.rng
    height, width = stage.canvas.size
    size = _log_uniform(rng, 8.5, 17)
    y = height * rng.uniform(0.12, 0.5)
    left = int(rng.integers(18, 72))
    while y < height + 0.2 * size and left > 0:
        spacing = max(size * rng.uniform(1.3, 2.4), width / rng.uniform(10, 26))
        for x in rng.permutation(np.arange(rng.uniform(0, spacing), width, spacing)):
            if rng.random() < 0.15:
                head_from_behind(stage.canvas, x, y, 1.3 * size, rng)
            elif rng.random() < 0.9 and left > 0:
                own = max(8.5, size * rng.uniform(0.85, 1.15))
                stage.person(x + rng.normal(0, 0.2) * size, y + rng.normal(0, 0.2) * size, own)
                left -= 1
        y += size * rng.uniform(1.0, 1.7)
        size *= rng.uniform(1.1, 1.35)


def _bystanders(stage: Stage, count: int, low: float, high: float) -> None:
    """People standing about on level ground, some seen from behind; the far ones drawn first.

    Heads at the camera's height lie on the horizon, however far; seen from higher up, near ones
    lie lower.
    """
    rng = stage.rng
    height, width = stage.canvas.size
    horizon = rng.uniform(0.12, 0.6) * height
    slope = rng.uniform(-0.4, 2.2)
    for size in sorted(_log_uniform(rng, low, high) for _ in range(count)):
        x = rng.uniform(0.03, 0.97) * width
        y = horizon + slope * size + rng.normal(0, 0.5) * size
        y = float(np.clip(y, 0.8 * size, height - 0.5 * size))
        if rng.random() < 0.18:
            head_from_behind(stage.canvas, x, y, 1.3 * size, rng)
        else:
            stage.person(x, y, size)


def _street(stage: Stage) -> None:
    _bystanders(stage, int(stage.rng.integers(1, 12)), 8.5, 80)


def _still_life(stage: Stage) -> None:
    rng = stage.rng
    height, width = stage.canvas.size
    for _ in range(rng.integers(3, 9)):
        size = _log_uniform(rng, 12, 0.5 * height)
        draw_lookalike(stage.canvas, rng.uniform(0, width), rng.uniform(0, height), size, rng)


_PAINTERS = (_portrait, _group, _crowd, _street, _group, _still_life)


def _scene_light(rng: Rng, stage_event: bool) -> tuple[Light, bool]:
    """Light of a scene and whether it is extreme."""
    light = random_light(rng)
    kind = rng.random() if not stage_event else rng.random() * 0.3
    if kind < 0.035:
        side = rng.choice([-1.0, 1.0])
        return replace(light, direction=(0.93 * side, -0.3, 0.2), key=1.3, ambient=0.07), True
    if kind < 0.06:
        return replace(light, key=rng.uniform(0.05, 0.2), ambient=rng.uniform(0.05, 0.12)), True
    if kind < 0.08:
        return replace(light, key=rng.uniform(1.8, 2.6), ambient=0.9), True
    if stage_event:
        tint = tuple(rng.uniform(0.35, 1.3, 3))
        return replace(light, tint=tint, key=1.1, ambient=rng.uniform(0.1, 0.35)), False
    return light, False


def draw_scene(rng: Rng, *, still_life: bool = False) -> Picture:
    """Draws a picture.

    Args:
        rng: all its randomness; the same state gives the same picture.
        still_life: look-alikes only, no face.
    """
    long_side = int(rng.choice([320, 384, 448, 512, 640], p=[0.15, 0.25, 0.3, 0.22, 0.08]))
    aspect = rng.choice([0.6667, 0.75, 0.8, 1.0], p=[0.4, 0.4, 0.1, 0.1])
    sides = (round(long_side * aspect), long_side)
    height, width = sides if rng.random() < 0.72 else sides[::-1]
    canvas = Canvas(height, width)
    event = len(EVENTS) - 1 if still_life else int(rng.choice(len(EVENTS), p=_EVENT_ODDS))
    paint_background(canvas, rng)
    light, extreme = _scene_light(rng, event == 4)
    if event == 4:
        canvas.image[:] = (canvas.image * np.clip(np.array(light.tint) * 0.45, 0, 1)).astype(
            np.uint8
        )
    stage = Stage(canvas, light, extreme, rng)
    if event < len(EVENTS) - 1:
        for _ in range(rng.integers(0, 8)):
            size = _log_uniform(rng, 10, 0.4 * height)
            draw_lookalike(canvas, rng.uniform(0, width), rng.uniform(0, height), size, rng)
    _PAINTERS[event](stage)
    for face in stage.faces:
        if rng.random() < 0.09:
            stage.obstruct(face)
    _foreground(stage)
    if rng.random() < 0.35:
        stage.defocus(_log_uniform(rng, 0.35, 4.0) * width / 448)
    boxes, attributes = annotate(stage)
    image = _camera(canvas.image, rng)
    quality = int(rng.integers(45, 97))
    return Picture(image, EVENTS[event], boxes, attributes, quality)


def _foreground(stage: Stage) -> None:
    """Sometimes something large and near cuts into the picture."""
    rng = stage.rng
    height, width = stage.canvas.size
    if rng.random() < 0.12:
        size = rng.uniform(0.1, 0.3) * height
        hand(stage.canvas, rng.uniform(0, width), rng.uniform(0.5, 1.1) * height, size, rng)


def annotate(stage: Stage) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Boxes and attributes of the faces that can be seen."""
    height, width = stage.canvas.size
    counts = np.bincount(stage.canvas.owner.ravel(), minlength=len(stage.faces) + 1)
    boxes, attributes = [], []
    blurs = stage.blurs + [0.0] * (len(stage.faces) - len(stage.blurs))
    for face, blur in zip(stage.faces, blurs):
        visible = counts[face.number] / max(face.area, 1.0)
        x0, y0, x1, y1 = np.round(face.box).astype(int)
        x0, x1 = np.clip((x0, x1), 0, width)
        y0, y1 = np.clip((y0, y1), 0, height)
        tall = y1 - y0
        if visible < 0.06 or max(x1 - x0, tall) < MIN_FACE or x1 <= x0 or tall <= 0:
            continue
        sigma = np.hypot(0.5, blur) / tall
        hidden = 1 - visible
        occlusion = int(hidden > 0.01) + int(hidden > 0.3)
        if face.look.masked:
            occlusion = 2
        elif face.look.glasses == "sun":
            occlusion = max(occlusion, 1)
        pose = max(abs(face.pose.roll), abs(face.pose.pitch)) > np.pi / 6
        pose = pose or abs(face.pose.yaw) > np.pi / 3
        boxes.append((x0, y0, x1 - x0, tall))
        attributes.append(
            (
                int(np.searchsorted(_BLUR_STEPS, sigma)),
                int(face.look.exaggerated),
                int(face.extreme_light),
                int(visible < 0.2),
                occlusion,
                int(pose),
            )
        )
    return (
        np.array(boxes, np.int64).reshape(-1, 4),
        np.array(attributes, np.int64).reshape(-1, 6),
    )


def _camera(image: NDArray[np.uint8], rng: Rng) -> NDArray[np.uint8]:
    """The effects of lens and sensor: uneven light, color cast, contrast and noise."""
    height, width = image.shape[:2]
    picture = image.astype(np.float32)
    falling = 1 + rng.uniform(0, 0.22) * noise(rng, height, width, 0.9 * width, 1)
    x = (np.arange(width, dtype=np.float32)[None, :] / width - 0.5) ** 2
    y = (np.arange(height, dtype=np.float32)[:, None] / height - 0.5) ** 2
    falling = falling * (1 - rng.uniform(0, 0.7) * (x + y))
    cast = 1 + rng.normal(0, 0.05, 3).astype(np.float32)
    picture *= (falling * np.exp(rng.normal(0, 0.12)))[..., None] * cast
    contrast, middle = rng.uniform(0.75, 1.2), rng.uniform(100, 140)
    picture = (picture - middle) * contrast + middle + rng.uniform(-12, 12)
    gray = picture.mean(2, keepdims=True)
    saturation = 0.0 if rng.random() < 0.06 else rng.uniform(0.6, 1.15)
    picture = gray + saturation * (picture - gray)
    if rng.random() < 0.05:
        picture = gray * np.array((0.75, 0.95, 1.1), np.float32)
    grain = rng.gamma(1.5, 2.0)
    picture += grain * rng.standard_normal((height, width, 1), np.float32)
    picture += 0.6 * grain * rng.standard_normal((height, width, 3), np.float32)
    if rng.random() < 0.3:
        picture += 0.6 * (picture - cv2.GaussianBlur(picture, (0, 0), 1.0))
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)
