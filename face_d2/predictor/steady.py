"""Positions of faces in the frames of a video in which the detector misses them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.tracking import Track, Tracker
from face_d2.predictor.results import FaceResult
from face_d2.predictor.video import Frame

__all__ = ["SteadyFace", "SteadyFaces", "SteadyFrame", "read_tracks"]

#: Seconds before the first and after the last detection of a track that are hidden too.
_LEAD = 0.5
#: Longest gap that is bridged, in seconds: what lies within a lead of both ends is hidden anyhow.
_GAP = 1.0
#: What a face may outgrow its expected box in a second, as a share of its side.
_GROWTH = 0.5
#: Frames that wait for what comes take at most this memory; a video of larger ones has less lead.
_WAITING_BYTES = 2**29
#: A detection that no other frame confirms is hidden where it is alone, unless it scores this much.
_SURE = 0.5


@dataclass(frozen=True)
class SteadyFace:
    """A face to hide.

    Attributes:
        track: the number of its track, from 1.
        box: (4,) XYXY.
        how: "found" by the detector, "between" two detections, or "before" or "after" all of them.
    """

    track: int
    box: NDArray[np.float32]
    how: str


@dataclass
class SteadyFrame:
    """A frame on its way: what was found in it, and what is hidden."""

    frame: Frame
    result: FaceResult
    faces: dict[int, SteadyFace] = field(default_factory=dict)

    @property
    def shown(self) -> list[SteadyFace]:
        """The faces to hide of which something lies in the picture."""
        height, width = self.frame.pixels.shape[:2]
        return [
            face
            for face in self.faces.values()
            if (face.box[2:] > 0).all() and (face.box[:2] < (width, height)).all()
        ]

    def as_json(self, number: int) -> dict[str, Any]:
        """The hidden regions of a frame as JSON data, with its number."""
        faces = []
        for face in self.shown:
            box = [round(float(value), 1) for value in face.box]
            faces.append({"track": face.track, "box": box, "how": face.how})
        return {"frame": number, "time": self.frame.time, "faces": faces}


class SteadyFaces:
    """Covers the gaps of tracks, and half a second at their ends.

    A frame is given out when what follows can no longer change it: a second later, or when the
    frames that wait take half a gigabyte.
    """

    def __init__(self) -> None:
        self._tracker = Tracker(_GAP)
        self._waiting: deque[SteadyFrame] = deque()
        self._last: dict[int, tuple[float, NDArray[np.float32]]] = {}  # of a track, before now
        self._sure: set[int] = set()

    def add(self, frame: Frame, result: FaceResult) -> Iterator[SteadyFrame]:
        """Takes the next frame and gives those that are complete."""
        now = SteadyFrame(frame, result)
        found = self._tracker.update(frame.time, result.boxes, result.scores)
        self._waiting.append(now)
        for track, box in zip(found, result.boxes):
            now.faces[track.number] = SteadyFace(track.number, box, "found")
            if track.number in self._last:
                self._fill_gap(track)
            if track.number not in self._sure and (track.found > 1 or track.score >= _SURE):
                self._sure.add(track.number)
                self._fill_lead(track)
            self._last[track.number] = (frame.time, box)
        self._extend(now)
        alive = {track.number for track in self._tracker.tracks}
        self._last = {number: last for number, last in self._last.items() if number in alive}
        self._sure &= alive
        size = frame.pixels.nbytes * (1 if frame.coded is None else 1.5)
        most = max(_WAITING_BYTES // max(size, 1), 1)
        while self._waiting and (
            frame.time - self._waiting[0].frame.time > _GAP or len(self._waiting) > most
        ):
            yield self._waiting.popleft()

    def finish(self) -> Iterator[SteadyFrame]:
        """Gives the frames that still wait."""
        yield from self._waiting
        self._waiting.clear()

    def _fill_gap(self, track: Track) -> None:
        before, first = self._last[track.number]
        for past in self._waiting:
            time = past.frame.time
            if before < time < track.time:
                share = np.float32((time - before) / (track.time - before))
                box = first + (track.box - first) * share
                away = min(time - before, track.time - time)
                box = _widened(box, away)
                past.faces[track.number] = SteadyFace(track.number, box, "between")

    def _fill_lead(self, track: Track) -> None:
        """Before the first detection, which may itself be a frame or more ago."""
        start = next(past for past in self._waiting if track.number in past.faces)
        first = start.faces[track.number].box
        for past in self._waiting:
            away = start.frame.time - past.frame.time
            if 0 < away <= _LEAD:
                moved = first - np.tile(track.speed, 2) * np.float32(away)
                box = _widened(_union(first, moved), away)
                past.faces[track.number] = SteadyFace(track.number, box, "before")

    def _extend(self, now: SteadyFrame) -> None:
        """After the last detection so far; what is found later takes its place."""
        for track in self._tracker.tracks:
            away = now.frame.time - track.time
            if 0 < away <= _LEAD and track.number in self._sure:
                box = _widened(_union(track.box, track.at(now.frame.time)), away)
                now.faces[track.number] = SteadyFace(track.number, box, "after")


def _union(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])


def _widened(box: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    extra = (box[2:] - box[:2]) * np.float32(_GROWTH * seconds)
    return np.concatenate([box[:2] - extra, box[2:] + extra])


def read_tracks(path: Path) -> dict[int, list[NDArray[np.float32]]]:
    """The boxes of every frame in a file of tracks, which may have been edited.

    Raises:
        ValueError: the file is not such a file.
        OSError: it cannot be read.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return {
            int(row["frame"]): [np.array(f["box"], np.float32).reshape(4) for f in row["faces"]]
            for row in rows
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a list of frames, each with its faces and their boxes, as --blur "
            f"writes it for videos ({error})"
        ) from error
