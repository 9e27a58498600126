"""Tracking of faces from frame to frame, by overlap and speed.

Libraries such as ``trackers`` and supervision's ByteTrack give the current position of a track. To
hide a face, its position is also needed in frames in which it was not detected, which depends on
later frames; association is the smaller part of this work. These libraries would also add a hundred
megabytes of dependencies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.nms import pairwise_iou

__all__ = ["Track", "Tracker"]

_Box = NDArray[np.float32]

#: Minimum IoU of a detection with the expected box of a track.
_MIN_OVERLAP = 0.2
#: Without this overlap: maximum distance as a fraction of the side, and maximum ratio of the sizes.
_MAX_DISTANCE, _MAX_RATIO = 0.7, 1.6


@dataclass
class Track:
    """One face over time.

    Attributes:
        number: number of the track, from 1.
        time: time of its last detection in seconds.
        box: (4,) XYXY of its last detection.
        speed: (2,) speed of its center in pixels per second, averaged over its detections.
        score: the best score so far.
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
    """Assigns the faces of successive frames to tracks.

    Args:
        patience: seconds without a detection after which a track ends.
    """

    def __init__(self, patience: float = 1.0) -> None:
        self.tracks: list[Track] = []
        self._patience = patience
        self._numbers = count(1)

    def update(self, time: float, boxes: _Box, scores: NDArray[np.float32]) -> list[Track]:
        """Updates the tracks with a frame; returns the track of every face, in the order of faces.

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
    """(T, N) similarities in 0-2: above 1 by overlap; below 1 by distance, for little overlap."""
    overlap = pairwise_iou(expected, boxes)
    centers = [(b[:, :2] + b[:, 2:]) / 2 for b in (expected, boxes)]
    away = np.linalg.norm(centers[0][:, None] - centers[1][None], axis=2)
    sizes = [(b[:, 2:] - b[:, :2]).clip(1e-3) for b in (expected, boxes)]
    sides = [np.sqrt(size.prod(axis=1)) for size in sizes]
    distance = away / np.maximum(sides[0][:, None], sides[1][None])
    ratio = np.maximum(sides[0][:, None] / sides[1][None], sides[1][None] / sides[0][:, None])
    near = (distance < _MAX_DISTANCE) & (ratio < _MAX_RATIO)
    return np.where(overlap >= _MIN_OVERLAP, 1 + overlap, np.where(near, 1 - distance, 0))


def _pairs(likeness: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Row and column of the most similar pairs, each used once, in descending order."""
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
