"""Random WIDER FACE scenes for property tests: faces, ignored faces, detections with ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from face_d2.evaluation.wider_face.ground_truth import SETTINGS, WiderFaceGroundTruth


@dataclass(frozen=True)
class Scene:
    """Faces x, y, w, h, the indices of those that count in a setting, and detections, by image."""

    faces: dict[str, list[tuple[float, ...]]]
    kept: dict[str, dict[str, set[int]]]
    detections: dict[str, list[tuple[float, ...]]]

    def ground_truth(self) -> WiderFaceGroundTruth:
        boxes = [np.reshape(rows, (-1, 4)).astype(float) for rows in self.faces.values()]
        kept = {
            setting: np.array(
                [
                    index in self.kept[setting][image]
                    for image, rows in self.faces.items()
                    for index in range(len(rows))
                ],
                dtype=bool,
            )
            for setting in SETTINGS
        }
        return WiderFaceGroundTruth(
            names=tuple(self.faces),
            boxes=np.concatenate(boxes),
            starts=np.cumsum([0, *map(len, boxes)]),
            kept=kept,
            attributes=None,
            source="random faces",
            images=f"all {len(boxes)} images",
        )

    def predictions(self) -> dict[str, np.ndarray]:
        return {image: np.reshape(rows, (-1, 5)) for image, rows in self.detections.items()}


_sizes = st.integers(-2, 30)
_places = st.integers(0, 40)
_faces = st.tuples(_places, _places, _sizes, _sizes)
_fractions = st.sampled_from([-1.5, -0.25, 0.0, 0.0, 0.5, 2.0])


@st.composite
def scenes(draw, max_images: int = 4) -> Scene:
    """Few places, sizes and scores, so that overlaps, duplicates and ties are common."""
    scores = draw(
        st.sampled_from(
            [
                st.floats(0, 1),
                st.sampled_from([0.1, 0.5, 0.5005, 0.9]),
                st.just(0.5),
                st.floats(-5, 9),
            ]
        )
    )
    faces, kept, detections = {}, {setting: {} for setting in SETTINGS}, {}
    for number in range(draw(st.integers(1, max_images))):
        image = f"0--Event/{number}"
        boxes = draw(st.lists(_faces, max_size=6))
        faces[image] = [tuple(map(float, box)) for box in boxes]
        for setting in SETTINGS:
            indices = st.sets(st.integers(0, len(boxes) - 1)) if boxes else st.just(set())
            kept[setting][image] = draw(indices)
        detections[image] = draw(st.lists(_detection(boxes, scores), max_size=10))
    return Scene(faces, kept, detections)


@st.composite
def _detection(draw, boxes, scores) -> tuple[float, ...]:
    """A box of its own or one near a face."""
    if boxes and draw(st.booleans()):
        x, y, w, h = (v + draw(_fractions) for v in draw(st.sampled_from(boxes)))
    else:
        x, y, w, h = draw(_faces)
    return (float(x), float(y), max(float(w), 0.0), max(float(h), 0.0), draw(scores))
