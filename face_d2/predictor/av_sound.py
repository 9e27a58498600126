"""The sound of a video on its way into a copy, by PyAV."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import Any

import av

__all__ = ["COPIED_SOUND", "SoundTrack", "codec_name"]

#: Sound that an .mp4 holds and browsers play; other sound is encoded as AAC.
COPIED_SOUND = {"aac", "mp3", "opus", "flac", "ac3", "eac3", "alac"}
#: Samples that AAC encodes together.
_AAC_FRAME = 1024


class SoundTrack:
    """Stream ``index`` of a video on its way into ``output``, the container of a copy.

    ``stack`` closes the video.
    """

    def __init__(self, path: str, index: int, output: Any, stack: contextlib.ExitStack) -> None:
        container = stack.enter_context(av.open(path, metadata_errors="ignore"))
        self._input = container.streams[index]
        self._output = output
        self._packets = (p for p in container.demux(self._input) if p.pts is not None)
        self._next = next(self._packets, None)
        self.start = 0.0 if self._next is None else float(self._next.pts * self._next.time_base)
        self._copied = codec_name(self._input) in COPIED_SOUND
        if self._copied:
            self._stream = output.add_stream_from_template(self._input)
        else:
            rate = self._input.codec_context.sample_rate
            self._stream = output.add_stream("aac", rate=rate)
            self._stream.layout = self._input.codec_context.layout
            self._resampler = av.AudioResampler("fltp", self._stream.layout, rate, _AAC_FRAME)

    def shift(self, start: float) -> None:
        """Says which time of the video is the beginning of the copy."""
        self._shift = start

    def until(self, seconds: float | None) -> None:
        """Brings over what sounds before a time of the copy; all that is left for None."""
        while self._next is not None:
            now = float(self._next.pts * self._next.time_base) - self._shift
            if seconds is not None and now > seconds:
                return
            self._bring(self._next)
            self._next = next(self._packets, None)
        if seconds is None and not self._copied:
            self._code(None)
            self._output.mux(self._stream.encode(None))

    def _bring(self, packet: Any) -> None:
        if self._copied:
            ticks = round(Fraction(self._shift).limit_denominator(10**6) / packet.time_base)
            packet.pts -= ticks
            packet.dts = packet.pts if packet.dts is None else packet.dts - ticks
            packet.stream = self._stream
            self._output.mux(packet)
            return
        for frame in packet.decode():
            self._code(frame)

    def _code(self, frame: Any) -> None:
        for piece in self._resampler.resample(frame):
            if piece.pts is not None:
                piece.pts -= round(self._shift / piece.time_base)
            self._output.mux(self._stream.encode(piece))


def codec_name(stream: Any) -> str:
    """The codec of a stream, by FFmpeg's name."""
    return stream.codec_context.codec.canonical_name
