"""GPUs are Detectron2's launcher's business; what it cannot know is refused before."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from face_d2 import train_net
from face_d2.engine import launch


def no_work(args: Any) -> None:
    raise AssertionError("called in this process")


def test_gpus_go_to_detectron2s_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    args = train_net.parser().parse_args(
        ["--num-gpus", "2", "--num-machines", "3", "--machine-rank", "1", "--dist-url", "tcp://x:1"]
    )
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(launch, "detectron2_launch", lambda *a, **k: calls.append((a, k)))
    launch.launch(no_work, args)
    places = {"num_machines": 3, "machine_rank": 1, "dist_url": "tcp://x:1"}
    assert calls == [((no_work, 2), {**places, "args": (args,)})]


def test_processes_are_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    args = train_net.parser().parse_args(["--num-gpus", "1", "--num-processes", "2"])
    with pytest.raises(SystemExit, match="--num-gpus 0"):
        launch.launch(no_work, args)
