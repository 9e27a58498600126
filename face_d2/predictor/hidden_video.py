"""Videos in which faces are hidden, and the tracks by which they are."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from face_d2.predictor.drawing import picture_name
from face_d2.predictor.results import FaceResult
from face_d2.predictor.sources import find_inputs
from face_d2.predictor.steady import SteadyFaces, SteadyFrame, read_tracks
from face_d2.predictor.video import Frame, Sink, open_reader, open_sink
from face_d2.utils.files import replaced_file

__all__ = ["HiddenVideo", "render_tracks"]


class HiddenVideo:
    """A copy of a video without its faces, and a JSON file ``tracks`` of what was hidden.

    The file is a list with one object per frame, on a line of its own. A context manager; an error
    within it leaves neither file.
    """

    def __init__(self, sink: Sink, tracks: Path, style: str) -> None:
        self._sink, self._path, self._style = sink, tracks, style
        self._steady = SteadyFaces()
        self._stack = contextlib.ExitStack()
        self._count = 0

    def write(self, frame: Frame, result: FaceResult) -> None:
        """Takes the next frame; it is written when what follows can no longer change it."""
        for steady in self._steady.add(frame, result):
            self._write(steady)

    def _write(self, steady: SteadyFrame) -> None:
        boxes = [face.box for face in steady.shown]
        self._sink.write(steady.frame.without(boxes, self._style))
        line = json.dumps(steady.as_json(self._count))
        self._file.write((",\n" if self._count else "[\n") + line)
        self._count += 1

    def __enter__(self) -> HiddenVideo:
        path = self._stack.enter_context(replaced_file(self._path))
        self._file = self._stack.enter_context(path.open("w", encoding="utf-8"))
        self._stack.push(self._finish)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _finish(self, *error: Any) -> None:
        """Writes what is left, unless there was an error; the first part of leaving the context."""
        if error[0] is None:
            for steady in self._steady.finish():
                self._write(steady)
            self._file.write("\n]\n" if self._count else "[]\n")


def render_tracks(video: str, tracks: Path, output: Path, style: str) -> Path:
    """Hides the faces of a file of tracks in a video, without searching it.

    Args:
        video: the video that the tracks are of.
        tracks: the file that ``--blur`` wrote for it; it may have been edited.
        output: the folder that gets ``blurred/`` with the copy, whose path is returned.
        style: see :func:`face_d2.predictor.drawing.redact_faces`.

    Raises:
        ValueError: the inputs are not a video and its tracks.
        OSError: a file cannot be read or written.
    """
    sources = find_inputs([video]).sources
    if len(sources) != 1 or sources[0].kind != "video":
        raise ValueError(f"--tracks needs one video, and {video} is none")
    boxes = read_tracks(tracks)
    path = output / "blurred" / picture_name(sources[0])
    with open_reader(sources[0]) as reader, open_sink(path, reader) as sink:
        frames = tqdm(reader, total=reader.expected or None, unit="frame")
        for number, frame in enumerate(frames):
            if number not in boxes:
                raise ValueError(f"{tracks}: no frame {number}; these are another video's tracks")
            sink.write(frame.without(boxes[number], style))
    if reader.loses:
        print(f"{video}: its copy lacks {'; '.join(reader.loses)}", file=sys.stderr)
    return path
