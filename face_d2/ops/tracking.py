"""Tracking of faces from frame to frame, by overlap and speed.

Kept libraries (``trackers``, supervision's ByteTrack) say where a track is now. To hide a face one
must know where it was while it was not found, which needs the frames after the gap, and association
is the smaller part of that work. They would also bring a hundred megabytes of dependencies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

__all__ = ["Track", "Tracker"]

_Box = NDArray[np.float32]

#: Least overlap (IoU) of a detection with where a track should be.
_LEAST_OVERLAP = 0.2
#: What else is the same face: as near as this share of its side, and within this ratio of its size.
_MOST_DISTANCE, _MOST_RATIO = 0.7, 1.6


@dataclass
class Track:
    """One face over time.

    Attributes:
        number: its name, from 1.
        time: when it was last found, in seconds.
        box: where, (4,) XYXY.
        speed: pixels a second of its center, (2,), averaged over its detections.
        score: the best so far.
        found: number of frames with a detection of the face.
    """

    number: int
    time: float
    box: _Box
    score: float
    speed: NDArray[np.float32] = field(default_factory=lambda: np.zeros(2, np.float32))
    found: int = 1

    def at(self, time: float) -> _Box:
        """The box at a time before or after the detections, at constant speed."""
        return self.box + np.tile(self.speed, 2) * np.float32(time - self.time)


class Tracker:
    """Gives faces of successive frames the number of their track.

    Args:
        patience: seconds for which a face that is not found is waited for.
    """

    def __init__(self, patience: float = 1.0) -> None:
        self.tracks: list[Track] = []
        self._patience = patience
        self._numbers = count(1)

    def update(self, time: float, boxes: _Box, scores: NDArray[np.float32]) -> list[Track]:
        """The tracks of a frame's faces, in their order; ``time``, ``box`` are then this frame's.

        Args:
            time: time of the frame in seconds; it increases from frame to frame.
            boxes: (N, 4) XYXY.
            scores: (N,).
        """
        self.tracks = [t for t in self.tracks if time - t.time <= self._patience]
        found: list[Track | None] = [None] * len(boxes)
        if self.tracks and len(boxes):
            expected = np.stack([track.at(time) for track in self.tracks])
            for old, new in _pairs(_likeness(expected, boxes)):
                track = self.tracks[old]
                centers = [(box[:2] + box[2:]) / 2 for box in (track.box, boxes[new])]
                speed = (centers[1] - centers[0]) / np.float32(max(time - track.time, 1e-6))
                track.speed = speed if track.found == 1 else (track.speed + speed) / 2
                track.time, track.box = time, boxes[new]
                track.score = max(track.score, float(scores[new]))
                track.found += 1
                found[new] = track
        for index, track in enumerate(found):
            if track is None:
                found[index] = Track(next(self._numbers), time, boxes[index], float(scores[index]))
                self.tracks.append(found[index])
        return found  # type: ignore[return-value]


def _likeness(expected: _Box, boxes: _Box) -> NDArray[np.float32]:
    """(T, N) in 0-2: above 1 the overlap, below it the nearness of what hardly overlaps."""
    low = np.maximum(expected[:, None, :2], boxes[None, :, :2])
    high = np.minimum(expected[:, None, 2:], boxes[None, :, 2:])
    common = (high - low).clip(0).prod(axis=2)
    sizes = [(b[:, 2:] - b[:, :2]).clip(1e-3) for b in (expected, boxes)]
    areas = [size.prod(axis=1) for size in sizes]
    overlap = common / (areas[0][:, None] + areas[1][None] - common)
    centers = [(b[:, :2] + b[:, 2:]) / 2 for b in (expected, boxes)]
    away = np.linalg.norm(centers[0][:, None] - centers[1][None], axis=2)
    sides = [np.sqrt(area) for area in areas]
    distance = away / np.maximum(sides[0][:, None], sides[1][None])
    ratio = np.maximum(sides[0][:, None] / sides[1][None], sides[1][None] / sides[0][:, None])
    near = (distance < _MOST_DISTANCE) & (ratio < _MOST_RATIO)
    return np.where(overlap >= _LEAST_OVERLAP, 1 + overlap, np.where(near, 1 - distance, 0))


def _pairs(likeness: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Row and column of the likest pairs, each used once, the likest first."""
    rows, columns = np.nonzero(likeness > 0)
    pairs: list[tuple[int, int]] = []
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    for at in np.argsort(-likeness[rows, columns], kind="stable").tolist():
        row, column = int(rows[at]), int(columns[at])
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            pairs.append((row, column))
    return pairs
