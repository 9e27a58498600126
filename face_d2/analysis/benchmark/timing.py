"""Interleaved timings and the machine's peak convolution rate."""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["Timing", "convolution_peak", "interleaved", "medians", "reason"]

#: (channels, height, width) of the maps for timing 3x3 convolutions.
_PEAK_MAPS = ((64, 120, 160), (128, 60, 80), (256, 60, 80))
_MIN_ROUNDS = 3
#: Pause between functions: idle threads of a runtime spin for a while on the cores of the next one.
_REST_SECONDS = 0.1


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one function: median, and first and third quartile, of some rounds."""

    median: float
    quartiles: tuple[float, float]
    rounds: int


def reason(error: BaseException) -> str:
    """An error as one line for a table."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")[:200]


def interleaved(
    functions: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warm_up: int = 2,
    max_seconds: float = 60.0,
    on_round: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing | str]:
    """Times functions in interleaved rounds, so that all are timed under the same conditions.

    In each round, a function is called twice and the second call is timed. As in a stream of
    images, its threads are then awake and its weights are in the caches, which the previous
    function has used.

    Args:
        functions: the functions to time; each returns when its work is complete.
        rounds: number of timed calls of each function.
        warm_up: number of rounds that are not timed.
        max_seconds: time limit after which no round starts, except the first three.
        on_round: called after every round.
        clock: returns the time in seconds.

    Returns:
        The timing of each function, or the reason why it failed.
    """
    failed: dict[str, str] = {}
    times: dict[str, list[float]] = {name: [] for name in functions}
    begun = time.perf_counter()
    for turn in range(-warm_up, rounds):
        if turn >= _MIN_ROUNDS and time.perf_counter() - begun > max_seconds:
            break
        for name, function in functions.items():
            if name in failed:
                continue
            time.sleep(_REST_SECONDS)
            try:
                function()
                start = clock()
                function()
            except Exception as error:  # of any runtime; the other functions continue
                failed[name] = reason(error)
                continue
            if turn >= 0:
                times[name].append(1000 * (clock() - start))
        on_round()
    return {name: failed.get(name) or _timing(values) for name, values in times.items()}


def medians(
    functions: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of functions, all of which must succeed; see :func:`interleaved`.

    Raises:
        RuntimeError: a function fails; the message names it and its error.
    """
    found = {}
    for name, timing in interleaved(functions, rounds=rounds, max_seconds=600, clock=clock).items():
        if isinstance(timing, str):
            raise RuntimeError(f"{name} fails: {timing}")
        found[name] = timing.median
    return found


def _timing(values: list[float]) -> Timing:
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values
    return Timing(statistics.median(values), (quartiles[0], quartiles[-1]), len(values))


@torch.inference_mode()
def convolution_peak(dtype: torch.dtype, device: str) -> float:
    """The highest rate of several 3x3 convolutions on a device ("cpu" or "cuda"), channels last.

    Returns:
        10^9 multiply-adds per second, a limit for networks of such layers.
    """
    best = 0.0
    for channels, height, width in _PEAK_MAPS:
        layout = {"dtype": dtype, "device": device, "memory_format": torch.channels_last}
        conv = nn.Conv2d(channels, channels, 3, padding=1).to(**layout)
        image = torch.randn(1, channels, height, width).to(**layout)

        def run(conv: nn.Module = conv, image: torch.Tensor = image) -> None:
            conv(image)
            if device != "cpu":
                torch.cuda.synchronize()

        (timing,) = interleaved({"conv": run}, rounds=9).values()
        if isinstance(timing, str):
            raise RuntimeError(f"a convolution in {dtype} on {device} fails: {timing}")
        # The first quartile is used, because other work on the machine slows some rounds down.
        best = max(best, 9 * channels**2 * height * width / timing.quartiles[0] / 1e6)
    return best
