"""Losses and gradients of batches no photograph gives; the same seed gives the same losses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from helpers.recorded_losses import build_trainer, losses_of
from torch import Tensor, nn

from face_d2 import train_net
from face_d2.engine.trainer import FaceTrainer

Words = Callable[..., list[str]]

SIDE = 256
NONE: list[list[float]] = []
SOME = [[20.0, 30.0, 40.0, 60.0], [100.0, 100.0, 190.0, 220.0], [10.0, 200.0, 22.0, 214.0]]


def crowd(count: int) -> list[list[float]]:
    """Faces of 4 to 64 pixels all over the image."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=generator) * (SIDE - 8)
    side = 4 * 2 ** (4 * torch.rand(count, 1, generator=generator))
    return torch.cat([corner, corner + side], 1).tolist()


#: Name -> faces and whether they are ignored, of both images of a batch.
BATCHES: dict[str, tuple[list[list[float]], bool]] = {
    "all-ignored": (SOME, True),
    "all-background": (NONE, False),
    "single-pixel-faces": ([[7.0, 9.0, 8.0, 10.0], [130.5, 64.0, 131.5, 65.0]], False),
    "slivers": ([[0.0, 50.0, 256.0, 50.01], [80.0, 0.0, 80.001, 256.0]], False),
    "whole-image": ([[0.0, 0.0, 256.0, 256.0]] * 3, False),
    "crowd": (crowd(2000), False),
}
WITHOUT_A_FACE = ("all-ignored", "all-background")


def item(faces: list[list[float]], ignored: bool, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((SIDE, SIDE))
    instances.gt_boxes = Boxes(torch.tensor(faces, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.zeros(len(faces), dtype=torch.int64)
    instances.gt_ignore = torch.full((len(faces),), ignored)
    shape = (3, SIDE, SIDE)
    image = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances, "file_name": f"{seed}.jpg"}


def batch(name: str) -> list[dict[str, Any]]:
    return [item(*BATCHES[name], seed) for seed in (0, 1)]


def load(words: list[str]) -> CfgNode:
    return train_net.load_cfg(train_net.parser().parse_args(words))


@pytest.fixture(params=["df2s2", "lffd"])
def model(request: pytest.FixtureRequest, words: Words) -> nn.Module:
    torch.manual_seed(0)
    return FaceTrainer.build_model(load(words(config=request.param))).train()


def losses_with_gradients(model: nn.Module, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
    with EventStorage():
        losses = model(inputs)
    sum(losses.values()).backward()
    return losses


def assert_finite(model: nn.Module, losses: dict[str, Tensor]) -> None:
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("name", BATCHES)
def test_losses_and_gradients_are_finite(model: nn.Module, name: str) -> None:
    losses = losses_with_gradients(model, batch(name))
    assert_finite(model, losses)
    if name in WITHOUT_A_FACE:
        assert losses["loss_box_reg"] == 0
    assert losses["loss_cls"] > 0


@pytest.mark.parametrize("name", BATCHES)
def test_the_same_in_bf16(model: nn.Module, name: str) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_with_gradients(model, batch(name))
    assert_finite(model, losses)
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_losses_of_the_crowd_hardly_depend_on_bf16(model: nn.Module) -> None:
    exact = losses_with_gradients(model, batch("crowd"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = losses_with_gradients(model, batch("crowd"))
    for name, loss in exact.items():
        assert rounded[name].item() == pytest.approx(loss.item(), rel=0.05), name


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("config", ["df2s2", "lffd"])
def test_the_same_seed_gives_the_same_losses(
    words: Words, tmp_path: Path, config: str, workers: int
) -> None:
    def losses(seed: int, run: str) -> list[float]:
        settings = ("SEED", seed, "DATALOADER.NUM_WORKERS", workers, "DATASETS.TEST", ())
        settings += ("TEST.BEST_METRIC", "", "OUTPUT_DIR", tmp_path / run)
        return losses_of(build_trainer(words(*settings, config=config)))

    first = losses(5, "a")
    assert len(first) == 4
    assert losses(5, "b") == first
    assert losses(6, "c") != first
