"""Merged parameter groups: training is the same, and runs from before they were merged go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from face_d2 import train_net
from face_d2.engine.optimizer import merge_groups


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


def test_a_run_with_a_group_per_parameter_is_resumed(
    words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint equals one of a version that did not merge groups (on Detectron2 0.5)."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    with monkeypatch.context() as patch:
        keep = "face_d2.engine.trainer.merge_groups"
        patch.setattr(keep, lambda optimizer: None)
        train_net.main(words("TEST.BEST_METRIC", "", "OUTPUT_DIR", whole))
    halves.mkdir()
    shutil.copy(whole / "model_0000001.pth", halves)
    (halves / "last_checkpoint").write_text("model_0000001.pth")
    train_net.main(words("TEST.BEST_METRIC", "", "OUTPUT_DIR", halves, flags=("--resume",)))
    a, b = (torch.load(run / "model_final.pth", weights_only=True) for run in (whole, halves))
    assert all(torch.equal(value, b["model"][name]) for name, value in a["model"].items())
    rates = [
        [group["lr"] for group in run["trainer"]["_trainer"]["optimizer"]["param_groups"]]
        for run in (a, b)
    ]
    assert rates[0] == rates[1]
