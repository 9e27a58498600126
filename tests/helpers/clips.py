"""Generated videos: green squares, as the finder of squares finds them, with sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

Square = tuple[int, int, int]  # x, y, side

CONSTANT = [number / 25 for number in range(75)]
#: 30 frames a second, then 5.
VARIABLE = [number / 30 for number in range(30)] + [1 + number / 5 for number in range(1, 11)]


def write_clip(
    path: Path,
    times: Sequence[float],
    squares: Callable[[float, int], Sequence[Square]] = lambda time, number: (),
    sound: str | None = None,
    rotation: int = 0,
    size: tuple[int, int] = (160, 120),
    colors: int = 2,
    tracks: int = 1,
    **options: Any,
) -> Path:
    """Writes an H.264 video by PyAV, its frames at the times given.

    Args:
        path: its ending says in which container.
        times: of the frames, in seconds.
        squares: those of a frame, by its time and number.
        sound: codec of a tone of 440 Hz.
        rotation: in degrees, counterclockwise, as a phone writes it.
        size: (width, height).
        colors: number of the color space in H.264; 2 is an unknown one.
        tracks: number of videos in the file, of which the others are empty.
        options: of ``av.open``.
    """
    import av

    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = colors
        for _ in range(tracks - 1):
            other = container.add_stream("libx264", rate=25)
            other.width, other.height, other.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            track = container.add_stream(sound, rate=48_000)
            track.layout = "mono"
            wave = np.sin(np.arange(int(times[-1] * 48_000)) / 17).astype(np.float32)[None] / 3
            tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            tone.rate, tone.pts = 48_000, 0
            samples = av.AudioResampler(track.codec_context.format, "mono", 48_000, 1024)
            for piece in [*samples.resample(tone), *samples.resample(None)]:
                container.mux(track.encode(piece))
            container.mux(track.encode(None))
        for number, time in enumerate(times):
            image = np.full((size[1], size[0], 3), 90, np.uint8)
            for x, y, side in squares(time, number):
                image[max(y, 0) : y + side, max(x, 0) : max(x + side, 0)] = (0, 255, 0)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = round(time * 90_000), Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frame_times(path: Path) -> list[float]:
    """Seconds since the first frame."""
    import av

    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def sound_packets(path: Path) -> list[bytes]:
    """The coded sound."""
    import av

    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [bytes(packet) for packet in container.demux(container.streams.audio[0])][:-1]


def seconds(path: Path) -> float:
    """How long a video is."""
    import av

    with av.open(str(path)) as container:
        return container.duration / av.time_base
