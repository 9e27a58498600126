"""Frames in and out, one at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_d2.predictor.sources import Source
from face_d2.utils.files import replaced_file

__all__ = ["VideoReader", "VideoSink"]

#: Taken where a stream does not say, as cameras often do not.
_FALLBACK_FPS = 25.0


class VideoReader:
    """The frames of a video file or a camera; a context manager.

    Args:
        source: the video or camera.

    Attributes:
        fps: frames a second.
        frames: their number by the file's own account, 0 where that is not known.

    Raises:
        ValueError: it cannot be opened, or its path is not UTF-8.
    """

    def __init__(self, source: Source) -> None:
        camera = source.kind == "camera"
        self._name = source.name
        _check_name(source.file)
        self._capture = cv2.VideoCapture(int(source.file) if camera else source.file)
        if not self._capture.isOpened():
            what = "no such camera" if camera else "cannot be opened as a video"
            raise ValueError(f"{source.name}: {what}")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS)
        if not 0 < self.fps < 1000:
            self.fps = _FALLBACK_FPS
        self.frames = 0 if camera else max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) BGR frames.

        Raises:
            ValueError: there is not a single one.
        """
        count = 0
        while True:
            there, frame = self._capture.read()
            if not there:
                break
            count += 1
            yield frame
        if not count:
            raise ValueError(f"{self._name}: no frame can be decoded")

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()


class VideoSink:
    """A video file that grows frame by frame and gets its name when it is complete.

    A context manager; an error within it leaves no file. The codec is MPEG-4 part 2, which every
    OpenCV has and which cuts odd sides by a pixel.

    Args:
        path: the ``.mp4`` to write.
        fps: frames a second.

    Raises:
        ValueError: the path is not UTF-8.
    """

    def __init__(self, path: Path, fps: float) -> None:
        _check_name(str(path))
        self._path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._stack = contextlib.ExitStack()

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Appends a frame; all must have the size of the first.

        Raises:
            OSError: the file cannot be written.
        """
        if self._writer is None:
            size = (frame.shape[1], frame.shape[0])
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._temporary), codec, self._fps, size)
            if not self._writer.isOpened():
                raise OSError(f"{self._path}: OpenCV cannot write this video")
        self._writer.write(frame)

    def __enter__(self) -> VideoSink:
        self._temporary = self._stack.enter_context(replaced_file(self._path))
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.release()
        self._stack.__exit__(*error)  # type: ignore[arg-type]


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:  # OpenCV would crash
        raise ValueError(f"{path}: not a UTF-8 path, which videos need; rename it") from None
