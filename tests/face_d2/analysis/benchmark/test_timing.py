"""Functions that take turns."""

from __future__ import annotations

import pytest
import torch

from face_d2.analysis.benchmark import timing
from face_d2.analysis.benchmark.published import PUBLISHED, TITAN_XP, TX2
from face_d2.analysis.benchmark.timing import Timing, convolution_peak, interleaved, medians


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_functions_take_turns(clock: Clock) -> None:
    calls: list[str] = []
    rounds = []

    def slow() -> None:
        calls.append("slow")
        clock.now += 0.001 * len(calls)

    def fast() -> None:
        calls.append("fast")
        clock.now += 0.002

    result = interleaved(
        {"slow": slow, "fast": fast},
        rounds=5,
        warm_up=1,
        on_round=lambda: rounds.append(1),
        clock=clock.perf_counter,
    )
    assert calls == ["slow", "slow", "fast", "fast"] * 6
    assert len(rounds) == 6
    assert isinstance(result["slow"], Timing)
    # The second calls of rounds 2 to 6: 6, 10, 14, 18, 22.
    assert result["slow"].median == pytest.approx(14)
    assert result["slow"].quartiles == pytest.approx((10, 18))
    assert result["fast"] == Timing(pytest.approx(2), pytest.approx((2, 2)), 5)


def test_one_that_fails_leaves_the_others(clock: Clock) -> None:
    def good() -> None:
        clock.now += 0.004

    def bad() -> None:
        raise RuntimeError("no compiler\nand a long trace")

    result = interleaved({"bad": bad, "good": good}, rounds=3, clock=clock.perf_counter)
    assert result["bad"] == "RuntimeError: no compiler"
    assert result["good"] == Timing(pytest.approx(4), pytest.approx((4, 4)), 3)


def test_medians_of_functions_that_may_not_fail(clock: Clock) -> None:
    def good() -> None:
        clock.now += 0.004

    def bad() -> None:
        raise ValueError("no such map")

    assert medians({"good": good}, rounds=3, clock=clock.perf_counter) == pytest.approx({"good": 4})
    with pytest.raises(RuntimeError, match="bad fails: ValueError: no such map"):
        medians({"good": good, "bad": bad}, rounds=3, clock=clock.perf_counter)


def test_slow_sizes_end_after_three_rounds(clock: Clock) -> None:
    def slow() -> None:
        clock.now += 100

    result = interleaved({"slow": slow}, rounds=50, max_seconds=10)
    assert isinstance(result["slow"], Timing)
    assert result["slow"].rounds == 3


def test_the_peak_is_the_best_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 0.71, 0.71 and 2.83 x 10^9 multiply-adds, the last in 5 ms, the others in 2."""
    answers = iter([2.0, 2.0, 5.0])

    def timed(functions: dict, rounds: int) -> dict[str, Timing]:
        for function in functions.values():
            function()
        median = next(answers)
        return {name: Timing(median, (median, median), rounds) for name in functions}

    monkeypatch.setattr(timing, "interleaved", timed)
    expected = 9 * 256**2 * 60 * 80 / 0.005 / 1e9
    assert convolution_peak(torch.float32, "cpu") == pytest.approx(expected)


def test_a_peak_waits_for_its_device_and_names_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def lost() -> None:
        calls.append("wait")
        if len(calls) == 3:
            raise RuntimeError("device lost")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    text = r"a convolution in torch\.bfloat16 on meta fails: RuntimeError: device lost"
    with pytest.raises(RuntimeError, match=text):
        convolution_peak(torch.bfloat16, "meta")
    assert len(calls) == 3


def test_published_figures_agree_with_each_other() -> None:
    """The paper's own E_net: 1.22 and 0.42 on the TITAN Xp, 0.14 and 0.04 on the TX2."""
    efficiency = {
        (one.name, device): one.gflops / times[480, 640]
        for one in PUBLISHED
        for device, times in one.milliseconds.items()
        if one.gflops
    }
    assert efficiency["LFFD", TITAN_XP] == pytest.approx(1.22, abs=0.005)
    assert efficiency["FaceBoxes 3.2x", TITAN_XP] == pytest.approx(0.42, abs=0.005)
    assert efficiency["LFFD", TX2] == pytest.approx(0.14, abs=0.005)
    assert efficiency["FaceBoxes 3.2x", TX2] == pytest.approx(0.04, abs=0.005)
    assert {one.name for one in PUBLISHED} >= {"S3FD", "DSFD", "PyramidBox", "SSH", "FaceBoxes"}
