"""A face stays hidden in the frames in which it is not found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from face_d2.predictor import steady
from face_d2.predictor.results import FaceResult, RawDetections
from face_d2.predictor.steady import SteadyFaces, SteadyFrame, read_tracks
from face_d2.predictor.video import Frame

WIDTH, HEIGHT = 320, 240
MARGIN = 0.15  # that every hidden face has

#: Where the faces of generated videos are at a time.
SCENES: dict[str, Callable[[float], list[list[float]]]] = {
    "still": lambda t: [[100, 80, 140, 130]],
    "moving": lambda t: [[20 + 60 * t, 40, 50 + 60 * t, 75]],
    "crossing": lambda t: [
        [20 + 60 * t, 40, 50 + 60 * t, 75],
        [250 - 60 * t, 50, 280 - 60 * t, 85],
    ],
    "leaving": lambda t: [[100 + 80 * t, 40, 140 + 80 * t, 80]],
    "nearing": lambda t: [[150 - 20 * t, 100 - 20 * t, 180 + 20 * t, 130 + 20 * t]],
}
_GENERATOR = np.random.default_rng(0)
#: Which frames the detector misses.
MISSES: dict[str, Callable[[int], bool]] = {
    "every fifth": lambda n: n % 5 == 4,
    "half a second": lambda n: 30 <= n < 42,
    "a third": lambda n: bool(_GENERATOR.random() < 1 / 3),
    "the first and last five": lambda n: n < 5 or n >= 95,
}
CONSTANT = [number / 25 for number in range(100)]
VARIABLE = [number / 30 for number in range(50)] + [50 / 30 + n / 12 for n in range(50)]


def result_of(boxes: list[NDArray[np.float32]], score: float = 0.9) -> FaceResult:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.full(len(array), score, np.float32)
    found = RawDetections(array, scores, np.zeros(len(array), np.int64))
    return FaceResult.from_raw(found, (1.0, 1.0), height=HEIGHT, width=WIDTH)


def run(times: list[float], results: list[FaceResult]) -> list[SteadyFrame]:
    faces = SteadyFaces()
    done: list[SteadyFrame] = []
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for time, result in zip(times, results):
        done += faces.add(Frame(pixels, time), result)
    return [*done, *faces.finish()]


def hidden_share(box: list[float], frame: SteadyFrame) -> float:
    """How much of a face, of what lies in the picture, the likeliest box hides."""
    x1, y1, x2, y2 = np.clip(box, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    best = 0.0
    for face in frame.shown:
        extra = (face.box[2:] - face.box[:2]) * MARGIN
        low, high = face.box[:2] - extra, face.box[2:] + extra
        common = (np.minimum(high, (x2, y2)) - np.maximum(low, (x1, y1))).clip(0).prod()
        best = max(best, float(common / ((x2 - x1) * (y2 - y1))))
    return best


@pytest.mark.parametrize("times", [CONSTANT, VARIABLE], ids=["constant", "variable"])
@pytest.mark.parametrize("miss", MISSES)
@pytest.mark.parametrize("scene", SCENES)
def test_faces_of_steady_tracks_stay_hidden(scene: str, miss: str, times: list[float]) -> None:
    """Of all that the detector misses, no face is less than 80 % hidden."""
    generator = np.random.default_rng(1)

    def truth(time: float) -> list[list[float]]:
        return [box for box in SCENES[scene](time) if box[0] < WIDTH - 8 and box[2] > 8]

    results = [
        result_of(
            []
            if MISSES[miss](number)
            else [np.array(box) + generator.normal(0, 0.5, 4) for box in truth(time)]
        )
        for number, time in enumerate(times)
    ]
    frames = run(times, results)
    assert [frame.frame.time for frame in frames] == times
    shares = [hidden_share(box, f) for f in frames for box in truth(f.frame.time)]
    visible = sum(share < 0.8 for share in shares)
    assert visible <= 0.005 * len(shares)
    assert all(frame.result is result for frame, result in zip(frames, results))


def test_the_ends_of_a_track_are_covered_for_half_a_second() -> None:
    face = np.float32([100, 80, 140, 130])
    found = [result_of([face] if 40 <= number < 60 else []) for number in range(100)]
    frames = run(CONSTANT, found)
    how = [{f.how for f in frame.faces.values()} for frame in frames]
    assert [n for n, h in enumerate(how) if h == {"before"}] == list(range(28, 40))
    assert [n for n, h in enumerate(how) if h == {"found"}] == list(range(40, 60))
    assert [n for n, h in enumerate(how) if h == {"after"}] == list(range(60, 72))
    assert not any(how[:27] + how[73:])


def test_what_is_found_once_with_a_low_score_is_hidden_there_alone() -> None:
    face = np.float32([100, 80, 140, 130])
    for score, covered in ((0.2, 1), (0.8, 25)):
        found = [result_of([face] if n == 50 else [], score) for n in range(100)]
        assert sum(bool(frame.faces) for frame in run(CONSTANT, found)) == covered


def test_waiting_frames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    faces, most = SteadyFaces(), 0
    for number in range(2000):
        list(faces.add(Frame(np.zeros((4, 4, 3), np.uint8), number / 25), result_of([])))
        most = max(most, len(faces._waiting))
    assert most <= 26  # a second
    monkeypatch.setattr(steady, "_WAITING_BYTES", 10 * 48)
    faces = SteadyFaces()
    for number in range(100):
        list(faces.add(Frame(np.zeros((4, 4, 3), np.uint8), number / 25), result_of([])))
    assert len(faces._waiting) == 10


def test_tracks_are_read_and_others_refused(tmp_path: Path) -> None:
    face = np.float32([100, 80, 140, 130])
    frames = run(CONSTANT, [result_of([face])] * 100)
    path = tmp_path / "tracks.json"
    path.write_text(json.dumps([frame.as_json(n) for n, frame in enumerate(frames)]))
    boxes = read_tracks(path)
    assert len(boxes) == 100
    np.testing.assert_allclose(boxes[50], [face])
    for text in ("{}", "[1]", "no json", '[{"frame": 0, "faces": [{"box": [1, 2]}]}]'):
        path.write_text(text)
        if text == "{}":
            assert read_tracks(path) == {}
            continue
        with pytest.raises(ValueError, match=r"tracks\.json: expected a list of frames"):
            read_tracks(path)
