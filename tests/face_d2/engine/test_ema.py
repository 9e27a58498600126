"""The averaged weights: what they are, who uses them, and that a resumed run has the same."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.killed_run import leave_half
from helpers.recorded_losses import build_trainer
from helpers.train_script import write_train_script
from torch import Tensor, nn

from face_d2 import train_net
from face_d2.engine.ema import ModelEMA
from face_d2.engine.trainer import FaceTrainer
from face_d2.predictor.torch_backend import TorchBackend

Words = Callable[..., list[str]]

EMA = ("SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.6)
QUIET = ("DATASETS.TEST", (), "TEST.BEST_METRIC", "")


def parse(words: list[str]) -> argparse.Namespace:
    return train_net.parser().parse_args(words)


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def recorded_run(words: Words, monkeypatch: pytest.MonkeyPatch, *overrides: object) -> list[dict]:
    """Trains by the command; gives the trained weights at the start and after every step."""
    history: list[dict[str, Tensor]] = []

    def note(trainer: FaceTrainer) -> None:
        state = trainer._bare_model.state_dict()
        history.append({name: value.double().clone() for name, value in state.items()})

    before, step = FaceTrainer.before_train, FaceTrainer.run_step
    monkeypatch.setattr(FaceTrainer, "before_train", lambda self: (note(self), before(self))[1])
    monkeypatch.setattr(FaceTrainer, "run_step", lambda self: (step(self), note(self))[0])
    train_net.main(words(*EMA, *overrides))
    return history


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16"),
        ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "MODEL.DF2S2.CLS_NORM", "running_pos"),
    ],
)
def test_a_checkpoint_holds_the_average_of_all_steps(
    words: Words,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[object, ...],
) -> None:
    """Against the written-out recursion in double precision; 0.6 binds from the 15th step on."""
    history = recorded_run(words, monkeypatch, *QUIET, *overrides, "SOLVER.MAX_ITER", 18)
    expected = history[0]
    for t, weights in enumerate(history[1:]):
        d = min(0.6, (1 + t) / (10 + t))
        expected = {
            name: d * expected[name] + (1 - d) * weight if weight.dim() else weight
            for name, weight in weights.items()
        }
    saved = load(tmp_path / "run" / "model_final.pth")
    assert saved["model"].keys() == expected.keys()
    for name, value in saved["model"].items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    trained = saved["trainer"]["ema"]["weights"]
    assert all(torch.equal(value.double(), history[-1][name]) for name, value in trained.items())
    assert not equal(saved["model"], trained)


def test_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm1d(3)
    ema = ModelEMA(model, 0.9)
    expected = torch.zeros(3)
    for t in range(4):
        model(torch.randn(5, 3) + t)
        ema.update()
        d = (1 + t) / (10 + t)
        expected = d * expected + (1 - d) * model.running_mean
    averages = ema.averages()
    torch.testing.assert_close(averages["running_mean"], expected)
    assert averages["num_batches_tracked"] == 4


@pytest.mark.parametrize("decay", [1.0, 1.5, -0.1])
def test_an_impossible_decay_is_named(words: Words, decay: float) -> None:
    with pytest.raises(ValueError, match=r"SOLVER\.EMA\.DECAY is"):
        train_net.main(words(*EMA, "SOLVER.EMA.DECAY", decay))


def test_precise_bn_is_refused_beside_it(words: Words) -> None:
    with pytest.raises(ValueError, match=r"SOLVER\.EMA\.ENABLED and TEST\.PRECISE_BN\.ENABLED"):
        train_net.main(words(*EMA, "TEST.PRECISE_BN.ENABLED", True))


def test_every_evaluation_sees_the_averages_and_training_its_own_weights(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The periodic ones, the last, those at several scales, the best checkpoint."""
    evaluated: list[tuple[str, dict[str, Tensor]]] = []
    plain, at_scales = FaceTrainer.test.__func__, FaceTrainer.test_with_TTA.__func__

    def test(cls: type, cfg: Any, model: nn.Module, evaluators: Any = None) -> Any:
        if evaluators is None:
            evaluated.append(("test", {k: v.clone() for k, v in model.state_dict().items()}))
        return plain(cls, cfg, model, evaluators)

    def test_with_tta(cls: type, cfg: Any, model: nn.Module) -> Any:
        evaluated.append(("TTA", {k: v.clone() for k, v in model.state_dict().items()}))
        return at_scales(cls, cfg, model)

    monkeypatch.setattr(FaceTrainer, "test", classmethod(test))
    monkeypatch.setattr(FaceTrainer, "test_with_TTA", classmethod(test_with_tta))
    tta = ("TEST.AUG.ENABLED", True, "TEST.AUG.SCALES", [1.0], "TEST.AUG.FLIP", False)
    train_net.main(words(*EMA, *tta, "TEST.EVAL_PERIOD", 2, "TEST.BEST_METRIC", "bbox/AP"))
    run = tmp_path / "run"
    middle, final, best = (load(run / f"model_{name}.pth") for name in ("0000001", "final", "best"))
    assert [name for name, _ in evaluated] == ["test", "test", "TTA"]
    for (_, weights), saved in zip(evaluated, (middle, final, final)):
        assert equal(weights, saved["model"])
    # AP may be 0 in both evaluations: the first then stays the best.
    assert any(equal(best["model"], saved["model"]) for saved in (middle, final))
    without = tmp_path / "without"
    line = words(*EMA, *QUIET, "OUTPUT_DIR", without, "SOLVER.EMA.ENABLED", False)
    train_net.main(line)
    own = final["trainer"]["ema"]["weights"]
    assert equal(own, load(without / "model_final.pth")["model"])


def test_evaluation_and_prediction_load_the_averages(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_net.main(words(*EMA, *QUIET))
    file = tmp_path / "run" / "model_final.pth"
    averages = load(file)["model"]
    used: list[dict[str, Tensor]] = []
    note = lambda cfg, model: used.append(model.state_dict()) or {}  # noqa: E731
    monkeypatch.setattr(FaceTrainer, "test", note)
    train_net.main(words("MODEL.WEIGHTS", file, flags=("--eval-only",)))
    train_net.main(words(flags=("--eval-only", "--resume")))
    line = parse(words())
    backend = TorchBackend.from_config(line.config_file, file, device="cpu", overrides=line.opts)
    used.append(backend.model.state_dict())
    assert len(used) == 3
    assert all(equal(state, averages) for state in used)


@pytest.mark.parametrize("config", ["df2s2", "lffd"])
def test_a_resumed_average_equals_an_uninterrupted_one(
    words: Words, tmp_path: Path, config: str
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_net.main(words(*EMA, *QUIET, "OUTPUT_DIR", whole, config=config))
    leave_half(whole, halves)
    train_net.main(words(*EMA, *QUIET, "OUTPUT_DIR", halves, flags=("--resume",), config=config))
    a, b = (load(folder / "model_final.pth") for folder in (whole, halves))
    assert equal(a["model"], b["model"])
    assert equal(a["trainer"]["ema"]["weights"], b["trainer"]["ema"]["weights"])
    assert a["trainer"]["ema"]["updates"] == b["trainer"]["ema"]["updates"] == 4
    momenta = [run["trainer"]["_trainer"]["optimizer"]["state"] for run in (a, b)]
    for key, state in momenta[0].items():
        assert torch.equal(state["momentum_buffer"], momenta[1][key]["momentum_buffer"])


def test_averaging_may_start_or_end_with_a_resume(
    words: Words,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it the run goes on from the trained weights; with it the average starts there."""
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    train_net.main(words(*QUIET, "OUTPUT_DIR", plain))
    train_net.main(words(*EMA, *QUIET, "OUTPUT_DIR", averaged))
    for folder in (plain, averaged):
        (folder / "last_checkpoint").write_text("model_0000001.pth")
    ended = build_trainer(words(*QUIET, "OUTPUT_DIR", averaged))
    monkeypatch.setattr(logging.getLogger("face_d2"), "propagate", True)
    ended.resume_or_load(resume=True)
    assert "goes on from the weights that were trained" in caplog.text
    trained = load(plain / "model_0000001.pth")["model"]
    assert equal(ended._bare_model.state_dict(), trained)
    begun = build_trainer(words(*EMA, *QUIET, "OUTPUT_DIR", plain))
    begun.resume_or_load(resume=True)
    assert begun._ema.updates == 0
    assert equal(begun._ema.averages(), trained)


def test_a_fine_tuned_average_starts_at_the_given_weights(words: Words, tmp_path: Path) -> None:
    train_net.main(words(*QUIET))
    file = tmp_path / "run" / "model_final.pth"
    line = words(*EMA, *QUIET, "MODEL.WEIGHTS", file, "OUTPUT_DIR", tmp_path / "tuned")
    trainer = build_trainer(line)
    trainer.resume_or_load(resume=False)
    assert equal(trainer._ema.averages(), load(file)["model"])


def test_two_processes_evaluate_the_same_average(
    words: Words, small_set: Path, tmp_path: Path
) -> None:
    """They start from different random weights, which the first's replace, and each keeps BatchNorm
    statistics of its own while it trains."""
    script = write_train_script(
        tmp_path,
        small_set,
        "import torch\n"
        "from detectron2.utils import comm\n"
        "from face_d2.engine.trainer import FaceTrainer\n"
        "def test(cls, cfg, model):\n"
        "    file = f'{cfg.OUTPUT_DIR}/evaluated_{comm.get_rank()}.pth'\n"
        "    torch.save(model.module.state_dict(), file)\n"
        "    return {}\n"
        "FaceTrainer.test = classmethod(test)\n",
    )
    for keys in (EMA, ()):
        folder = tmp_path / f"run_{len(keys)}"
        line = words(*keys, "OUTPUT_DIR", folder, flags=("--num-processes", "2"))
        run = subprocess.run(
            [sys.executable, "-W", "ignore", str(script), *line], capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr[-3000:]
        first, second = (load(folder / f"evaluated_{rank}.pth") for rank in (0, 1))
        assert equal(first, second)
        assert equal(first, load(folder / "model_final.pth")["model"])
