"""Merged parameter groups: training is the same, and runs from before they were merged go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from helpers.killed_run import leave_half
from torch import nn

from face_d2 import train_net
from face_d2.engine.optimizer import merge_groups
from face_d2.engine.trainer import FaceTrainer


def test_groups_of_equal_settings_become_one_and_train_alike() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2), nn.LayerNorm(2))
    start = {name: value.clone() for name, value in network.state_dict().items()}
    results = []
    for merged in (False, True):
        network.load_state_dict(start)
        groups = [
            {"params": [value], "weight_decay": 0.1 if isinstance(layer, nn.Linear) else 0.0}
            for layer in network
            for value in layer.parameters()
        ]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        if merged:
            merge_groups(optimizer)
            assert [len(group["params"]) for group in optimizer.param_groups] == [4, 4]
            assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.arange(6.0).view(2, 3)).square().sum().backward()
            optimizer.step()
        results.append({name: value.clone() for name, value in network.state_dict().items()})
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def resumed(
    words: Callable[..., list[str]], folder: Path, before: Callable[[], Any] = nullcontext
) -> list[dict[str, Any]]:
    """The final checkpoints of a run, and of one that was killed after half of its iterations.

    Args:
        before: makes the context of the first run.
    """
    whole, halves = folder / "whole", folder / "halves"
    with before():
        train_net.main(words("TEST.BEST_METRIC", "", "OUTPUT_DIR", whole))
    leave_half(whole, halves)
    train_net.main(words("TEST.BEST_METRIC", "", "OUTPUT_DIR", halves, flags=("--resume",)))
    return [torch.load(run / "model_final.pth", weights_only=True) for run in (whole, halves)]


def test_a_run_with_a_group_per_parameter_is_resumed(
    words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint equals one of a version that did not merge groups (on Detectron2 0.5)."""

    @contextmanager
    def without_merging() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr("face_d2.engine.trainer.merge_groups", lambda optimizer: None)
            yield

    whole, halves = resumed(words, tmp_path, without_merging)
    assert all(torch.equal(value, halves["model"][name]) for name, value in whole["model"].items())
    rates = [
        [group["lr"] for group in run["trainer"]["_trainer"]["optimizer"]["param_groups"]]
        for run in (whole, halves)
    ]
    assert rates[0] == rates[1]


def test_an_optimizer_of_ones_own_is_resumed_in_its_own_order(
    words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group per parameter, from the last parameter to the first."""

    def build_optimizer(cls: type, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        groups = [{"params": [p]} for p in reversed(list(model.parameters())) if p.requires_grad]
        return torch.optim.SGD(groups, lr=cfg.SOLVER.BASE_LR, momentum=0.9)

    monkeypatch.setattr(FaceTrainer, "build_optimizer", classmethod(build_optimizer))
    whole, halves = resumed(words, tmp_path)
    assert all(torch.equal(value, halves["model"][name]) for name, value in whole["model"].items())
