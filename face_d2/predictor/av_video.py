"""Reads and writes videos with PyAV, whose wheels contain FFmpeg."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from face_d2.predictor.av_sound import COPIED_SOUND, SoundTrack, codec_name
from face_d2.predictor.sources import Source
from face_d2.predictor.video import Frame, Reader, timed_frames
from face_d2.utils.files import replaced_file

__all__ = ["AvReader", "AvSink", "exact_pixels"]

#: Ticks a second of what is written. All usual rates are whole numbers of them.
_TICKS = 90_000
#: swscale's SWS_POINT, SWS_FULL_CHR_H_INT and SWS_ACCURATE_RND. By default colors move by 2 to 4
#: values from one conversion to the next; with these they stay (mean error 0.01 after four), in
#: half the time of bicubic interpolation.
#: One thread: on a busy machine its own threads took many times as long for small frames.
_EXACT = {"interpolation": 0x10 | 0x2000 | 0x40000, "threads": 1}
#: SWS_BILINEAR and SWS_FULL_CHR_H_INT, six times as fast: for frames that are searched, and whose
#: copy takes over the decoded picture. Colors are 1 to 4 values lower.
_SEARCHED = {"interpolation": 0x2 | 0x2000, "threads": 1}
#: Visually lossless. Slower presets make files of half the size in three times the time.
_ENCODING = {"crf": "20", "preset": "ultrafast"}
#: Patches of fewer pixels a side are not converted alone.
_LEAST_PATCH = 16
#: Colors that take the values 16 to 235, or do not say.
_LIMITED = (0, 1)
#: Matrix coefficients (ITU-T H.273): the same picture needs the same ones when it is coded again.
_BT709, _BT601, _UNKNOWN = 1, (5, 6), (0, 2)
#: Seconds until a stream that does not answer is given up, to connect and to read.
_TIMEOUTS = (10.0, 20.0)
#: Seconds before each attempt to connect to a stream again.
_RETRIES = (1, 2, 4, 8, 16)
_TRIED_AGAIN = (av.error.FFmpegError, OSError, EOFError)


class AvReader:
    """See :class:`face_d2.predictor.video.Reader`.

    Times are those of the frames, whether the rate is constant or not. A frame of another size than
    the first is brought to that size. A live stream that ends or breaks is connected to again.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.live = source.kind == "stream"
        self._open()
        stream = self._stream
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate and 0 < rate < 1000 else 25.0
        duration = self._container.duration
        if self.live and duration:  # a file on a server
            self.live = False
        self.frames = 0 if self.live else stream.frames
        self.expected = self.frames
        if duration and not (self.live or self.frames):
            self.expected = round(duration / av.time_base * self.fps)
        self.sound = [] if self.live else list(self._container.streams.audio)
        self.path = source.address or source.file
        self.colors = stream.codec_context
        self.start = 0.0
        #: When the file ends by its own account, on the clock of ``start``; None: not known.
        self.end: float | None = None
        if duration and not self.live:
            self.end = ((self._container.start_time or 0) + duration) / av.time_base
        self.loses = []
        others = len(self._container.streams) - len(self.sound) - 1
        if self.live and self._container.streams.audio:
            self.loses.append("the sound of the stream")
        elif others > 0:
            self.loses.append(f"{others} tracks besides (subtitles, data, other pictures)")
        new = [name for name in map(codec_name, self.sound) if name not in COPIED_SOUND]
        if new:
            self.loses.append(f"the coding of the sound ({', '.join(new)} becomes AAC)")
        if stream.codec_context.colorspace not in (_BT709, *_BT601, *_UNKNOWN):
            self.loses.append("its wide range of colors")

    def _open(self) -> None:
        address = self._source.address or self._source.file
        options = {"rtsp_transport": "tcp"} if address.startswith("rtsp") else {}
        timeout = _TIMEOUTS if self._source.address else None
        try:
            container = av.open(address, options=options, timeout=timeout, metadata_errors="ignore")
        except (av.error.FFmpegError, OSError) as error:
            reason = f" ({error.strerror})" if self._source.address else ""
            raise ValueError(
                f"{self._source.name}: cannot be opened as a video{reason}"
            ) from None  # the error has the address, and that may have a password
        cover = av.stream.Disposition.attached_pic
        moving = [s for s in container.streams.video if not s.disposition & cover]
        if not moving:
            container.close()
            raise ValueError(f"{self._source.name}: there is no video in it")
        moving[0].thread_type = "AUTO"
        self._container, self._stream = container, moving[0]

    def __iter__(self) -> Iterator[Frame]:
        return timed_frames(self._decoded(), self.fps, self._source.name)

    def _decoded(self) -> Iterator[tuple[NDArray[np.uint8], float, Any]]:
        """Pixels, time and ``Frame.coded`` of every frame, over all connections to a stream."""
        number, retry = 0, 0
        while True:
            broken = False
            try:
                for frame in self._container.decode(self._stream):
                    clock = time.monotonic() if self.live else frame.time
                    now = number / self.fps if clock is None else clock
                    coded = frame if _can_be_kept(frame) else None
                    pixels = exact_pixels(frame) if coded is None else _pixels(frame, _SEARCHED)
                    if number == 0:
                        self.start, size = now, pixels.shape[1::-1]
                    if pixels.shape[1::-1] != size:
                        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
                        coded = None
                    yield pixels, now, coded
                    number, retry = number + 1, 0
            except _TRIED_AGAIN:
                broken = True
            if not self.live:
                if broken and number:
                    print(f"{self._source.name}: damaged after frame {number}", file=sys.stderr)
                return
            retry = self._connect_again(retry)
            if retry < 0:
                return

    def _connect_again(self, retry: int) -> int:
        """Number of attempts since the last frame; -1 if there are no more attempts."""
        self._container.close()
        for attempt in range(retry, len(_RETRIES)):
            pause = _RETRIES[attempt]
            print(f"{self._source.name}: connecting again in {pause} s", file=sys.stderr)
            time.sleep(pause)
            with contextlib.suppress(ValueError):
                self._open()
                return attempt + 1
        return -1

    def __enter__(self) -> AvReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()


class AvSink:
    """See :class:`face_d2.predictor.video.Sink`: H.264 in an .mp4, with the sound of the video.

    Every frame has the time that it has in the video, and sound is copied packet by packet where
    the format allows. Odd sides lose a pixel, which H.264 in browsers requires. What is not changed
    in a frame is coded again as it was decoded, without a conversion of its colors.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        self._path, self._reader = path, reader
        self._stack = contextlib.ExitStack()
        self._container: Any = None
        self._last = -1
        self._held: deque[Any] = deque()
        self._step = self._shortest = round(_TICKS / reader.fps)

    def write(self, frame: Frame) -> None:
        with self._writing():
            if self._container is None:
                self._begin(frame)
            picture = self._picture(frame)
            tick = max(round((frame.time + self._offset) * _TICKS), self._last + 1)
            if self._last >= 0:
                self._step = tick - self._last
                self._shortest = min(self._shortest, self._step)
            self._last = tick
            picture.pts, picture.time_base = tick, Fraction(1, _TICKS)
            self._mux(self._stream.encode(picture))
            for track in self._tracks:
                track.until(frame.time + self._offset)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as error:
            raise OSError(f"{self._path}: cannot be written ({error.strerror})") from error

    def _picture(self, frame: Frame) -> Any:
        """The frame as it is coded."""
        height, width = (side // 2 * 2 for side in frame.pixels.shape[:2])
        if frame.coded is None:
            return self._converted(frame.pixels[:height, :width])
        planes = frame.coded.to_ndarray()
        for x1, y1, x2, y2 in frame.changed.tolist():
            columns, rows = _patch(x1, x2, width), _patch(y1, y2, height)
            patch = self._converted(frame.pixels[rows, columns]).to_ndarray()
            size = (rows.stop - rows.start, columns.stop - columns.start)
            new = _planes(patch, size)
            for number, plane in enumerate(_planes(planes, (height, width))):
                half = 2 if number else 1
                plane[
                    rows.start // half : rows.stop // half,
                    columns.start // half : columns.stop // half,
                ] = new[number]
        return av.VideoFrame.from_ndarray(planes, format="yuv420p")

    def _converted(self, pixels: NDArray[np.uint8]) -> Any:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="bgr24")
        return picture.reformat(format="yuv420p", dst_colorspace=self._matrix, **_EXACT)

    def _begin(self, frame: Frame) -> None:
        height, width = frame.pixels.shape[:2]
        if min(height, width) < 2:
            raise OSError(f"{self._path}: H.264 cannot hold a video of {width} x {height} pixels")
        file = str(self._temporary)
        options = {"movflags": "+faststart"}
        self._container = av.open(file, "w", format="mp4", options=options)
        self._stack.callback(self._close)
        rate = Fraction(self._reader.fps).limit_denominator(1001)
        stream = self._container.add_stream("libx264", rate=rate, options=dict(_ENCODING))
        stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
        # By default PyAV cuts frames into slices, one a thread, whose bits are not always the same.
        stream.thread_type = "FRAME"
        self._stream = stream
        self._matrix = None
        colors = getattr(self._reader, "colors", None)
        if colors is not None and colors.colorspace not in _UNKNOWN:
            wide = colors.colorspace not in _BT601
            self._matrix = "ITU709" if wide else "ITU601"
            stream.codec_context.colorspace = _BT709 if wide else colors.colorspace
            stream.codec_context.color_range = 1
            if colors.colorspace in (_BT709, *_BT601):
                stream.codec_context.color_primaries = colors.color_primaries
                stream.codec_context.color_trc = colors.color_trc
        start = getattr(self._reader, "start", 0.0)
        self._tracks = [
            SoundTrack(self._reader.path, track.index, self._container, self._stack)
            for track in getattr(self._reader, "sound", [])
        ]
        # Where sound begins before the picture does, the picture is later in the copy too.
        first = min([start, *(track.start for track in self._tracks)])
        self._offset = start - first
        for track in self._tracks:
            track.shift(first)
        self._stack.push(self._finish)

    def _mux(self, packets: list[Any], last: bool = False) -> None:
        """Writes all packets but the newest, which may be the last: its duration is in no other."""
        self._held += packets
        while len(self._held) > (0 if last else 1):
            packet = self._held.popleft()
            if last and not self._held:
                packet.duration = self._last_duration()
            elif not packet.duration:
                packet.duration = self._step
            self._container.mux(packet)

    def _last_duration(self) -> int:
        """For how long the last frame is shown: to the end of the video, like another frame."""
        end = getattr(self._reader, "end", None)
        if end is None:
            return self._step
        left = round((end - self._reader.start + self._offset) * _TICKS) - self._last
        return min(max(left, self._shortest), self._step)

    def __enter__(self) -> AvSink:
        self._temporary = self._stack.enter_context(replaced_file(self._path))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _finish(self, *error: Any) -> None:
        """Writes what is left, unless there was an error; the first part of leaving the context."""
        if error[0] is None:
            with self._writing():
                self._mux(self._stream.encode(None), last=True)
                for track in self._tracks:
                    track.until(None)
                self._container.close()

    def _close(self) -> None:
        """Closes the file; after an error this may fail as well, and the first error counts."""
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()


def _can_be_kept(frame: Any) -> bool:
    """Whether a copy can take over a decoded frame: it has the format and colors of the copy."""
    return (
        frame.format.name == "yuv420p"
        and not round(frame.rotation / 90) % 4
        and not (frame.width % 2 or frame.height % 2)
        and min(frame.width, frame.height) >= _LEAST_PATCH
        and frame.color_range in _LIMITED
        and frame.colorspace in (_BT709, *_BT601, *_UNKNOWN)
    )


def _patch(first: int, last: int, length: int) -> slice:
    """A range of pixels, widened to even borders and to what is converted alone."""
    last = max(last, min(first + _LEAST_PATCH, length))
    first = min(first, last - _LEAST_PATCH)
    return slice(first // 2 * 2, last + last % 2)


def _planes(picture: NDArray[np.uint8], size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Views of the three planes of what PyAV gives for yuv420p."""
    height, width = size
    whole, small = height * width, (height // 2, width // 2)
    luma, blue, red = np.split(picture.reshape(-1), [whole, whole + whole // 4])
    return [luma.reshape(size), blue.reshape(small), red.reshape(small)]


def exact_pixels(frame: Any) -> NDArray[np.uint8]:
    """(H, W, 3) BGR of a decoded frame, turned as the video says."""
    return _pixels(frame, _EXACT)


def _pixels(frame: Any, way: dict[str, int]) -> NDArray[np.uint8]:
    pixels = frame.reformat(format="bgr24", **way).to_ndarray()
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels
