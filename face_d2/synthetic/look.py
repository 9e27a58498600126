"""Who a synthetic face is: identity, expression and accessories, drawn at random.

:mod:`face_d2.synthetic.skin` paints such a face, :mod:`face_d2.synthetic.head` gives it a
head and hair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from face_d2.synthetic.canvas import Floats, Rng, color_from_hsv, random_color, skin_color

_HAIR_RGB = np.array(
    [
        (18, 15, 14),
        (32, 24, 20),
        (58, 38, 26),
        (88, 58, 36),
        (128, 88, 50),
        (178, 134, 80),
        (216, 184, 128),
        (140, 62, 28),
        (125, 122, 120),
        (205, 203, 200),
    ],
    np.float32,
)
_HAIR_ODDS = np.array([0.2, 0.2, 0.14, 0.1, 0.09, 0.07, 0.06, 0.04, 0.05, 0.05])

HAIR_STYLES = {
    "bald": 0.05,
    "buzz": 0.1,
    "short": 0.27,
    "fringe": 0.09,
    "receding": 0.07,
    "medium": 0.09,
    "bob": 0.08,
    "long": 0.13,
    "bun": 0.05,
    "curly": 0.07,
}
HEADWEAR = {
    "none": 0.8,
    "cap": 0.06,
    "brim": 0.04,
    "beanie": 0.03,
    "helmet": 0.03,
    "scarf": 0.04,
}


@dataclass(frozen=True)
class Look:
    """Identity, expression and accessories of one face. Lengths are head units.

    Attributes:
        skin, hair, iris, lips, gear: BGR colors in 0-255 (gear: headwear, frames, face mask).
        width, jaw, chin, cheek, nose_length, nose_width, ear: multipliers of the head's shapes.
        eye_gap: distance of each eye from the middle.
        eye_size: multiplier.
        eye_tilt: rise of the outer corner.
        eye_open: 0 closed, 1 normal.
        gaze: horizontal direction of the eyes, -1..1.
        brow_weight: multiplier of the thickness.
        brow_lift, brow_frown: movement of the brows, in -1..1.
        mouth_width, lip_weight: multipliers.
        smile: -1 (sad) .. 1 (broad).
        mouth_open: 0 .. 1 (scream).
        age: 0 young .. 1 old.
        beard: 0 none .. 1 full; ``moustache`` likewise.
        makeup: 0 .. 1.
        hair_style: one of HAIR_STYLES.
        headwear: one of HEADWEAR.
        glasses: "none", "clear" or "sun".
        masked: whether a cloth mask covers nose and mouth.
    """

    skin: Floats
    hair: Floats
    iris: Floats
    lips: Floats
    gear: Floats
    width: float
    jaw: float
    chin: float
    cheek: float
    nose_length: float
    nose_width: float
    ear: float
    eye_gap: float
    eye_size: float
    eye_tilt: float
    eye_open: float
    gaze: float
    brow_weight: float
    brow_lift: float
    brow_frown: float
    mouth_width: float
    lip_weight: float
    smile: float
    mouth_open: float
    age: float
    beard: float
    moustache: float
    makeup: float
    hair_style: str
    headwear: str
    glasses: str
    masked: bool

    @property
    def exaggerated(self) -> bool:
        """Whether the expression is one that WIDER FACE calls exaggerate."""
        return self.mouth_open > 0.5


def _pick(rng: Rng, odds: dict[str, float]) -> str:
    weights = np.array(list(odds.values()))
    return str(rng.choice(list(odds), p=weights / weights.sum()))


def sample_look(rng: Rng) -> Look:
    """Draws a face: skin and hair over the human range, neutral to laughing, young to old."""
    skin = skin_color(rng)
    darkness = 1 - float(skin.mean()) / 255
    odds = _HAIR_ODDS * np.where(np.arange(10) < 3, 1 + 3 * darkness, 1 - 0.8 * darkness)
    hair = _HAIR_RGB[rng.choice(10, p=odds / odds.sum())][::-1] * rng.uniform(0.8, 1.2)
    if rng.random() < 0.02:
        hair = color_from_hsv(rng.random(), 0.7, 0.7)
    feminine = rng.random() < 0.5
    style = _pick(rng, HAIR_STYLES)
    if feminine and style in ("bald", "buzz", "receding"):
        style = str(rng.choice(["long", "bob", "bun", "medium"]))
    age = float(rng.beta(1.3, 2.2))
    makeup = float(feminine) * rng.uniform(0, 1)
    lips = skin * (0.72, 0.68, 0.88) + (14, 6, 22)
    lips = lips + makeup * 0.6 * (np.array((50, 35, 150)) - lips)
    laughing = rng.random() < 0.16
    iris = rng.choice([(30, 45, 70), (22, 30, 45), (110, 90, 60), (70, 95, 80), (140, 120, 95)])
    bearded = not feminine and rng.random() < 0.4
    return Look(
        skin=skin,
        hair=np.clip(hair, 0, 255).astype(np.float32),
        iris=iris.astype(np.float32),
        lips=np.clip(lips, 0, 255).astype(np.float32),
        gear=random_color(rng, 0.9, 0.08, 0.95),
        width=rng.normal(1.0, 0.04),
        jaw=rng.normal(0.97 if feminine else 1.03, 0.05),
        chin=rng.normal(0.97 if feminine else 1.02, 0.04),
        cheek=rng.uniform(0.6, 1.3),
        nose_length=rng.normal(1.0, 0.08),
        nose_width=rng.normal(0.95 + 0.25 * darkness, 0.12),
        ear=rng.uniform(0.85, 1.2),
        eye_gap=rng.normal(0.272, 0.012),
        eye_size=rng.normal(1.06 if feminine else 0.98, 0.08),
        eye_tilt=rng.normal(0.012, 0.018),
        eye_open=0.05 if rng.random() < 0.05 else float(np.clip(rng.normal(1.0, 0.2), 0.45, 1.5)),
        gaze=float(np.clip(rng.normal(0, 0.35), -0.9, 0.9)),
        brow_weight=rng.uniform(0.6, 1.0) if feminine else rng.uniform(0.85, 1.5),
        brow_lift=rng.uniform(0.2, 1.0) if laughing else rng.normal(0, 0.3),
        brow_frown=rng.normal(0, 0.35),
        mouth_width=rng.normal(1.0, 0.08),
        lip_weight=rng.uniform(0.7, 1.2) + 0.3 * darkness,
        smile=(
            rng.uniform(-0.3, 1.0) if laughing else float(np.clip(rng.normal(0.35, 0.4), -0.6, 1))
        ),
        mouth_open=rng.uniform(0.3, 1.0) if laughing else max(0.0, rng.normal(0, 0.1)),
        age=age,
        beard=rng.uniform(0.25, 1.0) if bearded else 0.0,
        moustache=(
            rng.uniform(0.3, 1.0) if bearded or (not feminine and rng.random() < 0.1) else 0.0
        ),
        makeup=makeup,
        hair_style=style,
        headwear=_pick(rng, HEADWEAR),
        glasses=_pick(rng, {"none": 0.82, "clear": 0.11, "sun": 0.07}),
        masked=rng.random() < 0.025,
    )
