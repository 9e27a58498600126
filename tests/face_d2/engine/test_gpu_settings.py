"""What matters on GPUs only, seen on the CPU: cuDNN's search, pinned memory, waiting for copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.recorded_losses import build_trainer, losses_of, on_gpu

from face_d2 import train_net
from face_d2.engine.trainer import FaceTrainer
from face_d2.modeling.base import OneStageDetector

Words = Callable[..., list[str]]


@pytest.fixture
def search() -> Iterator[None]:
    before = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = before


def test_evaluations_do_without_cudnns_search_and_training_has_it(
    words: Words, monkeypatch: pytest.MonkeyPatch, search: None
) -> None:
    """Between two evaluations, and after one that fails."""
    seen: dict[str, list[bool]] = {"training": [], "evaluation": []}
    forward = OneStageDetector.forward

    def noted(self: OneStageDetector, inputs: list[dict[str, Any]]) -> Any:
        kind = "training" if self.training else "evaluation"
        seen[kind].append(torch.backends.cudnn.benchmark)
        return forward(self, inputs)

    monkeypatch.setattr(OneStageDetector, "forward", noted)
    tta = ("TEST.AUG.ENABLED", True, "TEST.AUG.SCALES", [1.0], "TEST.AUG.FLIP", False)
    train_net.main(words("CUDNN_BENCHMARK", True, *tta, "TEST.EVAL_PERIOD", 2))
    assert seen["training"] == [True] * 4
    assert len(seen["evaluation"]) == 3 * 4  # after 2 and 4 iterations, and at several scales
    assert not any(seen["evaluation"])

    def broken(inputs: list[dict[str, Any]]) -> None:
        raise RuntimeError("a broken model")

    with pytest.raises(RuntimeError, match="a broken model"):
        FaceTrainer.test(train_net.load_cfg(train_net.parser().parse_args(words())), broken)
    assert torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    ("device", "available", "pinned"),
    [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)],
)
def test_training_images_are_pinned_for_a_gpu(
    words: Words, monkeypatch: pytest.MonkeyPatch, device: str, available: bool, pinned: bool
) -> None:
    cfg = build_trainer(words()).cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert FaceTrainer.build_train_loader(cfg)._loader.pin_memory is pinned


@pytest.mark.parametrize(("kind", "waits"), [("cuda", False), ("cpu", True)])
def test_images_are_copied_to_a_gpu_without_waiting(
    monkeypatch: pytest.MonkeyPatch, kind: str, waits: bool
) -> None:
    """A copy to the CPU must be waited for: the image may come from a GPU."""
    copies: list[bool] = []

    class Image(torch.Tensor):
        def to(self, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
            assert device.type == kind
            copies.append(non_blocking)
            return self.as_subclass(torch.Tensor)

    model = OneStageDetector(pixel_mean=[0.0], pixel_std=[1.0], input_format="L")
    monkeypatch.setattr(OneStageDetector, "device", torch.device(kind))
    model.preprocess_image([{"image": torch.zeros(1, 4, 4).as_subclass(Image)}])
    assert copies == [not waits]


@pytest.mark.cuda
def test_a_gpu_is_given_pinned_images_and_resumes_its_averages(
    words: Words, tmp_path: Path
) -> None:
    line = on_gpu(words("DATASETS.TEST", (), "TEST.BEST_METRIC", "", "SOLVER.EMA.ENABLED", True))
    trainer = build_trainer(line)
    losses_of(trainer)
    assert all(item["image"].is_pinned() for item in trainer._loader.latest)
    saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    resumed = build_trainer(line)
    resumed.resume_or_load(resume=True)
    averages, weights = resumed._ema.averages(), resumed._bare_model.state_dict()
    for name, average in saved["model"].items():
        assert averages[name].is_cuda
        assert torch.equal(averages[name].cpu(), average.cpu())
        trained = saved["trainer"]["ema"]["weights"][name]
        assert torch.equal(weights[name].cpu(), trained.cpu())
