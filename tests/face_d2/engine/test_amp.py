"""Training in mixed precision: bf16 on the CPU here, fp16 and bf16 where there is a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.recorded_losses import build_trainer, losses_of, on_gpu
from torch import nn

from face_d2.engine.trainer import FaceTrainer

Words = Callable[..., list[str]]

AMP = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION")
QUIET = ("DATASETS.TEST", (), "TEST.BEST_METRIC", "")


def computed_in(trainer: FaceTrainer) -> set[torch.dtype]:
    """Filled, while it trains, with what its convolutions give."""
    found: set[torch.dtype] = set()
    for module in trainer.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, x, y: found.add(y.dtype))
    return found


def assert_near(losses: list[float], exact: list[float]) -> None:
    assert all(math.isfinite(loss) for loss in losses)
    assert losses == pytest.approx(exact, rel=0.1)
    assert losses != exact


@pytest.mark.parametrize("config", ["df2s2", "lffd"])
def test_bf16_on_the_cpu_trains_like_fp32(words: Words, config: str) -> None:
    exact = losses_of(build_trainer(words(*QUIET, config=config)))
    trainer = build_trainer(words(*QUIET, *AMP, "bfloat16", config=config))
    dtypes = computed_in(trainer)
    assert_near(losses_of(trainer), exact)
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("config", ["df2s2", "lffd"])
def test_trains_on_a_gpu_like_fp32(
    words: Words, tmp_path: Path, config: str, precision: str
) -> None:
    exact = losses_of(build_trainer(on_gpu(words(*QUIET, config=config))))
    trainer = build_trainer(on_gpu(words(*QUIET, *AMP, precision, config=config)))
    dtypes = computed_in(trainer)
    assert_near(losses_of(trainer), exact)
    assert dtypes == {getattr(torch, precision)}
    saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    scaler = saved["trainer"]["_trainer"]["grad_scaler"]
    assert (scaler.get("scale", 0) > 0) == (precision == "float16")


def test_fp16_on_the_cpu_and_other_words_are_refused(words: Words) -> None:
    with pytest.raises(ValueError, match=r"float16.*needs a GPU.*bfloat16.*AMP\.ENABLED False"):
        build_trainer(words(*AMP, "float16"))
    with pytest.raises(ValueError, match=r"PRECISION is 'half'.*bfloat16.*float16"):
        build_trainer(words(*AMP, "half"))


@pytest.mark.parametrize("first", [(), (*AMP, "bfloat16")])
def test_a_run_goes_on_in_another_precision(
    words: Words, tmp_path: Path, first: tuple[object, ...]
) -> None:
    second = () if first else (*AMP, "bfloat16")
    losses_of(build_trainer(words(*QUIET, *first, "SOLVER.MAX_ITER", 2)))
    trainer = build_trainer(words(*QUIET, *second))
    trainer.resume_or_load(resume=True)
    losses = losses_of(trainer)
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
