"""GPUs go to Detectron2's launcher, what it cannot know is refused before; CPU processes end."""

from __future__ import annotations

import argparse
import atexit
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils import comm

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
    assert calls == [((launch._work_and_leave, 2), {**places, "args": (no_work, args)})]


def test_one_gpu_needs_no_group() -> None:
    """Detectron2's launcher calls the work in this process then."""
    done: list[argparse.Namespace] = []
    launch._work_and_leave(done.append, argparse.Namespace(num_gpus=1))
    assert len(done) == 1


def threads() -> list[str]:
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def exchange(args: argparse.Namespace) -> None:
    """Uses the groups as a training does; writes which of their threads outlive the work."""
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
    model.itself = [model]  # a cycle, as trainers and their hooks are
    model(torch.zeros(1, 2)).sum().backward()
    assert comm.all_gather(comm.get_rank()) == [0, 1]
    mine = Path(args.folder) / str(comm.get_rank())

    def write(when: str) -> None:
        mine.with_suffix(when).write_text(" ".join(t for t in threads() if "gloo" in t))

    write(".before")
    atexit.register(write, ".after")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of threads")
def test_no_thread_of_a_group_outlives_the_work(tmp_path: Path) -> None:
    """One that lets go of an exchange while Python shuts down would abort the process."""
    args = train_net.parser().parse_args(["--num-gpus", "0", "--num-processes", "2"])
    args.folder = tmp_path
    launch.launch(exchange, args)
    for rank in ("0", "1"):
        if not (tmp_path / f"{rank}.before").read_text():
            pytest.skip("this torch does not name its threads")
        assert (tmp_path / f"{rank}.after").read_text() == ""


def test_processes_are_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    args = train_net.parser().parse_args(["--num-gpus", "1", "--num-processes", "2"])
    with pytest.raises(SystemExit, match="--num-gpus 0"):
        launch.launch(no_work, args)
