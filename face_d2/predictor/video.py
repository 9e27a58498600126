"""Frames in and out, one at a time: by PyAV (the extra [video]), or by OpenCV in its place."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from face_d2.predictor.drawing import hidden_corners, redact_faces
from face_d2.predictor.sources import Source
from face_d2.utils.files import replaced_file

__all__ = ["Frame", "OpenCvReader", "OpenCvSink", "Reader", "Sink", "open_reader", "open_sink"]

#: Taken where a stream does not say, as cameras often do not.
_FALLBACK_FPS = 25.0


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        pixels: (H, W, 3) BGR, upright; with ``coded``, converted fast, up to 4 values off.
        time: seconds since the first frame.
        coded: the same picture as PyAV decoded it, where a copy can take over what is not changed.
        changed: (N, 4) the parts of ``pixels`` that ``coded`` does not have: first column and row,
            and those behind the last.
    """

    pixels: NDArray[np.uint8]
    time: float
    coded: Any = field(default=None, repr=False, compare=False)
    changed: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 4), np.int64))

    @property
    def exact(self) -> NDArray[np.uint8]:
        """``pixels`` in the exact colors, for pictures that people look at."""
        if self.coded is None:
            return self.pixels
        from face_d2.predictor.av_video import exact_pixels

        return exact_pixels(self.coded)

    def without(self, boxes: Sequence[NDArray[np.float32]], style: str) -> Frame:
        """The frame with what is in some boxes hidden, see :func:`redact_faces`."""
        parts = [hidden_corners(self.pixels.shape, box[None]) for box in boxes]
        return replace(
            self,
            pixels=redact_faces(self.pixels, boxes, style),
            changed=np.concatenate([self.changed, *parts]),
        )

    def painted(self, pixels: NDArray[np.uint8]) -> Frame:
        """The frame with other pixels, which may differ anywhere."""
        return Frame(pixels, self.time)


class Reader(Protocol):
    """The frames of a video, stream or camera; a context manager.

    Attributes:
        fps: mean frames a second, as announced.
        frames: their number by the file's own account, 0 where that is not known.
        expected: about how many there will be, for a bar of progress; 0 where that is not known.
        loses: what a copy of this video lacks, in words for people.
    """

    fps: float
    frames: int
    expected: int
    loses: list[str]

    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            ValueError: there is not a single one.
        """

    def __enter__(self) -> Reader: ...

    def __exit__(self, *error: object) -> None: ...


class Sink(Protocol):
    """A video file that grows frame by frame and gets its name when it is complete.

    A context manager; an error within it leaves no file.
    """

    def write(self, frame: Frame) -> None:
        """Appends a frame; all must have the size of the first.

        Raises:
            OSError: the file cannot be written.
        """

    def __enter__(self) -> Sink: ...

    def __exit__(self, *error: object) -> None: ...


def open_reader(source: Source) -> Reader:
    """The frames of a source.

    Raises:
        ValueError: it cannot be opened, or its path is not UTF-8.
    """
    _check_name(source.file)
    if source.kind == "stream" and not _has_pyav():
        raise ValueError(
            f"{source.name}: reading streams needs PyAV; install it (pip install 'face-d2[video]')"
        )
    if source.kind == "camera" or not _has_pyav():
        return OpenCvReader(source)
    from face_d2.predictor.av_video import AvReader

    return AvReader(source)


def open_sink(path: Path, reader: Reader) -> Sink:
    """A copy of a reader's video: H.264 with the sound by PyAV, else MPEG-4 by OpenCV.

    Raises:
        ValueError: the path is not UTF-8.
    """
    _check_name(str(path))
    if not _has_pyav():
        return OpenCvSink(path, reader.fps)
    from face_d2.predictor.av_video import AvSink

    return AvSink(path, reader)


def timed_frames(
    decoded: Iterator[tuple[NDArray[np.uint8], float, Any]], fps: float, name: str
) -> Iterator[Frame]:
    """Frames from pixels, time and ``Frame.coded``; their times begin at 0 and always increase.

    A time that does not increase (a file without times, a new connection) becomes that of the frame
    before plus 1 / ``fps``.

    Raises:
        ValueError: there is not a single frame.
    """
    start, before = None, -1.0
    for pixels, now, coded in decoded:
        if start is None:
            start = now
        passed = now - start
        before = before + 1 / fps if passed <= before else passed
        yield Frame(pixels, round(before, 6), coded)
    if start is None:
        raise ValueError(f"{name}: no frame can be decoded")


class OpenCvReader:
    """See :class:`Reader`. OpenCV reads cameras, and files where PyAV is not installed.

    Frames of a file have the times in the file, or times by the frame rate if the file has none.
    Frames of a camera have the times at which they were read.

    Raises:
        ValueError: the camera or file cannot be opened.
    """

    def __init__(self, source: Source) -> None:
        self._camera = source.kind == "camera"
        self._name = source.name
        self._capture = cv2.VideoCapture(int(source.file) if self._camera else source.file)
        if not self._capture.isOpened():
            what = "no such camera" if self._camera else "cannot be opened as a video"
            raise ValueError(f"{source.name}: {what}")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS)
        if not 0 < self.fps < 1000:
            self.fps = _FALLBACK_FPS
        count = 0 if self._camera else self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = self.expected = max(int(count), 0)
        self.loses: list[str] = []
        if not _has_pyav():
            sound = [] if self._camera else ["sound, if the video has any"]
            self.loses = [*sound, "H.264 that browsers play (it is MPEG-4)"]

    def __iter__(self) -> Iterator[Frame]:
        return timed_frames(self._decoded(), self.fps, self._name)

    def _decoded(self) -> Iterator[tuple[NDArray[np.uint8], float, None]]:
        while True:
            there, pixels = self._capture.read()
            if not there:
                return
            stated = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield pixels, time.monotonic() if self._camera else stated, None

    def __enter__(self) -> OpenCvReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()


class OpenCvSink:
    """See :class:`Sink`. The codec is MPEG-4 part 2, which every OpenCV has.

    It cuts odd sides by a pixel and has one rate: where frames come more slowly they are repeated,
    where they come faster some are left out, so that the copy is as long as the video.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._written = 0
        self._stack = contextlib.ExitStack()

    def write(self, frame: Frame) -> None:
        if self._writer is None:
            size = (frame.pixels.shape[1], frame.pixels.shape[0])
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._temporary), codec, self._fps, size)
            if not self._writer.isOpened():
                raise OSError(f"{self._path}: OpenCV cannot write this video")
        # The frame before is shown until this one's time; this one is kept for what comes.
        while self._written < round(frame.time * self._fps):
            self._writer.write(self._last)
            self._written += 1
        self._last = frame.pixels

    def __enter__(self) -> OpenCvSink:
        self._temporary = self._stack.enter_context(replaced_file(self._path))
        return self

    def __exit__(self, *error: Any) -> None:
        if self._writer is not None:
            if error[0] is None:
                self._writer.write(self._last)
            self._writer.release()
        self._stack.__exit__(*error)


def _check_name(path: str) -> None:
    """Refuses paths that are not UTF-8, on which video libraries crash."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path}: not a UTF-8 path, which videos need; rename it") from None


def _has_pyav() -> bool:
    return importlib.util.find_spec("av") is not None
