"""When checkpoints are made, and which of them are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from face_d2 import train_net
from face_d2.engine import hooks
from face_d2.engine.trainer import FaceTrainer

Words = Callable[..., list[str]]

QUIET = ("DATASETS.TEST", (), "TEST.BEST_METRIC", "")


def names(folder: Path) -> list[str]:
    return sorted(path.stem.removeprefix("model_") for path in folder.glob("model_*.pth"))


@pytest.fixture
def minute_steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a training step moves on by 60 seconds; its time is the only item."""
    now = [1000.0]
    monkeypatch.setattr(hooks.time, "monotonic", lambda: now[0])
    step = FaceTrainer.run_step

    def run_step(self: FaceTrainer) -> None:
        step(self)
        now[0] += 60

    monkeypatch.setattr(FaceTrainer, "run_step", run_step)
    return now


def test_checkpoints_by_time_come_between_those_by_iterations(
    words: Words, tmp_path: Path, minute_steps: list[float]
) -> None:
    """Any checkpoint starts the time anew."""
    times = ("SOLVER.CHECKPOINT_MINUTES", 3, "SOLVER.CHECKPOINT_PERIOD", 5, "SOLVER.MAX_ITER", 10)
    train_net.main(words(*QUIET, *times))
    assert names(tmp_path / "run") == ["0000002", "0000004", "0000007", "0000009", "final"]


def test_no_checkpoints_by_time_by_default(
    words: Words, tmp_path: Path, minute_steps: list[float]
) -> None:
    train_net.main(words(*QUIET, "SOLVER.CHECKPOINT_PERIOD", 100))
    assert names(tmp_path / "run") == ["final"]


def test_a_run_resumes_from_a_checkpoint_by_time(
    words: Words, tmp_path: Path, minute_steps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped after five iterations, two after its last checkpoint."""
    keys = ("SOLVER.CHECKPOINT_MINUTES", 3, "SOLVER.CHECKPOINT_PERIOD", 100, "SOLVER.MAX_ITER", 7)
    ema = ("SOLVER.EMA.ENABLED", True)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    train_net.main(words(*QUIET, *keys, *ema, "OUTPUT_DIR", whole))
    step = FaceTrainer.run_step

    def until_5(self: FaceTrainer) -> None:
        if self.iter == 5:
            raise KeyboardInterrupt
        step(self)

    with monkeypatch.context() as stopped:
        stopped.setattr(FaceTrainer, "run_step", until_5)
        with pytest.raises(KeyboardInterrupt):
            train_net.main(words(*QUIET, *keys, *ema, "OUTPUT_DIR", torn))
    assert names(torn) == ["0000002"]
    train_net.main(words(*QUIET, *keys, *ema, "OUTPUT_DIR", torn, flags=("--resume",)))
    a, b = (torch.load(f / "model_final.pth", weights_only=True) for f in (whole, torn))
    for states in ((a["model"], b["model"]), *[[s["trainer"]["ema"]["weights"] for s in (a, b)]]):
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(("keep", "left"), [(0, ["0", "1", "2", "3"]), (2, ["2", "3"])])
def test_the_newest_checkpoints_are_kept(
    words: Words, tmp_path: Path, keep: int, left: list[str]
) -> None:
    """The best and the final one are not counted."""
    keys = ("SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_TO_KEEP", keep, "TEST.EVAL_PERIOD", 1)
    train_net.main(words(*keys, "TEST.BEST_METRIC", "bbox/AP"))
    kept = names(tmp_path / "run")
    assert kept == [*(name.zfill(7) for name in left), "best", "final"]
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_final.pth"


def test_a_resumed_run_counts_the_checkpoints_before_it(words: Words, tmp_path: Path) -> None:
    run = tmp_path / "run"
    keys = (*QUIET, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_TO_KEEP")
    train_net.main(words(*keys, 3))
    assert names(run) == ["0000001", "0000002", "0000003", "final"]
    (run / "last_checkpoint").write_text("model_0000002.pth")
    (run / "model_0000003.pth").unlink()
    (run / "model_mine.pth").touch()
    train_net.main(words(*keys, 2, "SOLVER.MAX_ITER", 6, flags=("--resume",)))
    assert names(run) == ["0000004", "0000005", "final", "mine"]


def test_another_runs_checkpoints_in_the_folder_are_left_alone(
    words: Words, tmp_path: Path
) -> None:
    """A new run that is not a resumed one deletes its own only, also where theirs are later."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "model_0089999.pth").touch()
    train_net.main(words(*QUIET, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_TO_KEEP", 1))
    assert names(run) == ["0000003", "0089999", "final"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("CHECKPOINT_PERIOD", 0), ("CHECKPOINT_MINUTES", -1.0), ("MAX_TO_KEEP", -2)],
)
def test_impossible_values_are_named_before_training(
    words: Words, tmp_path: Path, key: str, value: float
) -> None:
    with pytest.raises(ValueError, match=rf"SOLVER\.{key} is {value}; expected"):
        train_net.main(words(*QUIET, f"SOLVER.{key}", value))
    assert not list((tmp_path / "run").glob("*.pth"))
