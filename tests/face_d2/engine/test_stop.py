"""Ctrl-C and SIGTERM: the iteration is finished, a checkpoint is left, ``--resume`` goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.train_script import write_train_script

from face_d2 import train_net
from face_d2.engine.trainer import FaceTrainer

Words = Callable[..., list[str]]

EMA = ("SOLVER.EMA.ENABLED", True, "SOLVER.CHECKPOINT_PERIOD", 100)
QUIET = ("DATASETS.TEST", (), "TEST.BEST_METRIC", "")


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_equal_runs(whole: Path, torn: Path) -> None:
    a, b = (load(folder / "model_final.pth") for folder in (whole, torn))
    for x, y in (
        (a["model"], b["model"]),
        (a["trainer"]["ema"]["weights"], b["trainer"]["ema"]["weights"]),
    ):
        assert all(torch.equal(value, y[name]) for name, value in x.items())
    for key, state in a["trainer"]["_trainer"]["optimizer"]["state"].items():
        other = b["trainer"]["_trainer"]["optimizer"]["state"][key]
        assert torch.equal(state["momentum_buffer"], other["momentum_buffer"])


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_within_a_step_ends_the_run_behind_it(
    words: Words,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[BaseException],
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    train_net.main(words(*EMA, *QUIET, "OUTPUT_DIR", whole))
    step = FaceTrainer.run_step
    handlers = signal.getsignal(number)

    def run_step(self: FaceTrainer) -> None:
        if self.iter == 1:
            signal.raise_signal(number)
        step(self)

    with monkeypatch.context() as signaled:
        signaled.setattr(FaceTrainer, "run_step", run_step)
        with pytest.raises(error):
            train_net.main(words(*EMA, *QUIET, "OUTPUT_DIR", torn))
    assert (torn / "last_checkpoint").read_text() == "model_0000001.pth"
    assert signal.getsignal(number) is handlers
    train_net.main(words(*EMA, *QUIET, "OUTPUT_DIR", torn, flags=("--resume",)))
    assert_equal_runs(whole, torn)


def test_a_signal_within_an_evaluation_ends_it_and_leaves_its_checkpoint(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the model holds the averaged weights; training goes on from its own."""
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    keys = (*EMA, "TEST.EVAL_PERIOD", 3, "TEST.BEST_METRIC", "")
    monkeypatch.setattr(FaceTrainer, "test", staticmethod(lambda cfg, model: {}))
    train_net.main(words(*keys, "OUTPUT_DIR", whole))

    def test(cfg: Any, model: torch.nn.Module) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the evaluation went on")

    with monkeypatch.context() as signaled:
        signaled.setattr(FaceTrainer, "test", staticmethod(test))
        with pytest.raises(SystemExit):
            train_net.main(words(*keys, "OUTPUT_DIR", torn))
    assert (torn / "last_checkpoint").read_text() == "model_0000002.pth"
    train_net.main(words(*keys, "OUTPUT_DIR", torn, flags=("--resume",)))
    assert_equal_runs(whole, torn)


def test_a_second_signal_ends_the_run_at_once(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_step(self: FaceTrainer) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the step went on")

    monkeypatch.setattr(FaceTrainer, "run_step", run_step)
    with pytest.raises(KeyboardInterrupt):
        train_net.main(words(*EMA, *QUIET))
    assert not list((tmp_path / "run").glob("*.pth"))


def test_a_signal_in_the_last_iteration_leaves_the_final_weights(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = FaceTrainer.run_step

    def run_step(self: FaceTrainer) -> None:
        step(self)
        if self.iter == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(FaceTrainer, "run_step", run_step)
    with pytest.raises(KeyboardInterrupt):
        train_net.main(words(*EMA))
    assert [path.name for path in (tmp_path / "run").glob("*.pth")] == ["model_final.pth"]


def test_ctrl_c_in_a_terminal_reaches_the_loaders_too(
    words: Words, small_set: Path, tmp_path: Path
) -> None:
    """It is sent to all processes of the group; the workers leave it to the one that trains."""
    script = write_train_script(tmp_path, small_set)
    line = words(
        *(*EMA, *QUIET, "SOLVER.MAX_ITER", 100000, "SOLVER.STEPS", ()),
        *("DATALOADER.NUM_WORKERS", 2),
    )
    log = tmp_path / "out.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), *line],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        deadline = time.monotonic() + 240
        while b" iter: 19 " not in log.read_bytes():
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=120)
    text = log.read_text()
    assert "Stopped. --resume goes on from this checkpoint." in text, text[-3000:]
    assert "DataLoader worker" not in text
    (checkpoint,) = (tmp_path / "run").glob("*.pth")
    assert (tmp_path / "run" / "last_checkpoint").read_text() == checkpoint.name
