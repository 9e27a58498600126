"""Faces keep their numbers from frame to frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.tracking import Tracker


def boxes(*corners: tuple[float, float], side: float = 30) -> NDArray[np.float32]:
    return np.array([[x, y, x + side, y + side] for x, y in corners], np.float32).reshape(-1, 4)


def numbers(tracker: Tracker, time: float, found: NDArray[np.float32]) -> list[int]:
    tracks = tracker.update(time, found, np.full(len(found), 0.9, np.float32))
    return [track.number for track in tracks]


def test_faces_that_cross_keep_their_numbers_whatever_their_order() -> None:
    tracker = Tracker()
    generator = np.random.default_rng(0)
    for number in range(50):
        time = number / 25
        both = boxes((20 + 80 * time, 40), (180 - 80 * time, 48))
        order = generator.permutation(2)
        assert numbers(tracker, time, both[order]) == [order[0] + 1, order[1] + 1]


def test_a_face_is_found_again_where_its_speed_takes_it() -> None:
    tracker = Tracker(patience=1.0)
    for number in range(10):
        assert numbers(tracker, number / 25, boxes((20 + 8 * number, 40))) == [1]
    assert numbers(tracker, 0.9, boxes()) == []
    assert numbers(tracker, 1.0, boxes((20 + 8 * 25, 40), (20, 40))) == [1, 2]


def test_a_face_that_is_away_too_long_or_elsewhere_is_a_new_one() -> None:
    tracker = Tracker(patience=1.0)
    assert numbers(tracker, 0.0, boxes((20, 40))) == [1]
    assert numbers(tracker, 0.04, boxes((120, 40))) == [2]
    assert numbers(tracker, 1.2, boxes((20, 40))) == [3]
    assert len(tracker.tracks) == 1


def test_a_small_face_that_leaps_by_half_its_side_is_the_same() -> None:
    tracker = Tracker()
    assert numbers(tracker, 0.0, boxes((20, 40), side=8)) == [1]
    assert numbers(tracker, 0.04, boxes((25, 42), side=8)) == [1]
    assert numbers(tracker, 0.08, boxes((26, 43), side=30)) == [2]  # much larger
