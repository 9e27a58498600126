"""Times of functions that take turns, and how fast the machine convolves at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["Timing", "convolution_peak", "interleaved", "medians", "reason"]

#: (channels, height, width) of the maps on which 3x3 convolutions are timed.
_PEAK_MAPS = ((64, 120, 160), (128, 60, 80), (256, 60, 80))
_LEAST_ROUNDS = 3
#: Idle threads of a runtime look for work for a while, on the cores of the one that comes next.
_REST_SECONDS = 0.1


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one function.

    Attributes:
        median: over the rounds.
        quartiles: the first and the third.
        rounds: how many were timed.
    """

    median: float
    quartiles: tuple[float, float]
    rounds: int


def reason(error: BaseException) -> str:
    """An error in a line, for a table."""
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
    """Times functions that take turns, so that all see the machine alike.

    In its turn a function is called twice and the second call is timed, as in a row of pictures:
    its threads are awake and its weights in the caches, which the function before had to itself.

    Args:
        functions: what to time; each returns when its work is done.
        rounds: timed calls of each.
        warm_up: rounds before those that count.
        max_seconds: after so long no further round begins, except the first three.
        on_round: is called after every round.
        clock: gives seconds.

    Returns:
        The timing of each, or why there is none: a function that raises is left out.
    """
    failed: dict[str, str] = {}
    times: dict[str, list[float]] = {name: [] for name in functions}
    begun = time.perf_counter()
    for turn in range(-warm_up, rounds):
        if turn >= _LEAST_ROUNDS and time.perf_counter() - begun > max_seconds:
            break
        for name, function in functions.items():
            if name in failed:
                continue
            time.sleep(_REST_SECONDS)
            try:
                function()
                start = clock()
                function()
            except Exception as error:  # of whatever runtime it is; the others go on
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
    """Median milliseconds of functions none of which may fail; see :func:`interleaved`.

    Raises:
        RuntimeError: one does; the message names it and its error.
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
def convolution_peak(dtype: torch.dtype, device: str, rounds: int = 9) -> float:
    """The machine's best rate over some 3x3 convolutions, channels last.

    Args:
        dtype: what they are calculated in.
        device: "cpu" or "cuda".
        rounds: timings of each.

    Returns:
        10^9 multiply-adds a second; nothing faster is to be expected of a network of such layers.
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

        (timing,) = interleaved({"conv": run}, rounds=rounds).values()
        if isinstance(timing, str):
            raise RuntimeError(f"a convolution in {dtype} on {device} fails: {timing}")
        # The faster quarter: what the machine can do, not what its neighbours leave.
        best = max(best, 9 * channels**2 * height * width / timing.quartiles[0] / 1e6)
    return best
