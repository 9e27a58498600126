"""``kill -9`` at a random moment, then ``--resume``: the run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

ITERATIONS = 12


@pytest.fixture
def command(small_set: Path, tmp_path: Path, words: Callable[..., list[str]]) -> list[str]:
    """A training of a dozen iterations as a program of its own."""
    script = tmp_path / "train.py"
    script.write_text(
        "import json, sys\n"
        "from face_d2 import train_net\n"
        "from face_d2.data.register import register_wider_face\n"
        "from face_d2.engine.trainer import FaceTrainer\n"
        f"root = {str(small_set)!r}\n"
        "for split in ('train', 'val'):\n"
        "    register_wider_face(f'small_{split}', f'{root}/WIDER_{split}/images',\n"
        "        f'{root}/wider_face_split/wider_face_{split}_bbx_gt.txt')\n"
        "plain = FaceTrainer.after_step\n"
        "def after_step(self):\n"
        "    with open(f'{self.cfg.OUTPUT_DIR}/losses.jsonl', 'a') as file:\n"
        "        loss = self.storage.history('total_loss').latest()\n"
        "        print(json.dumps([self.iter, loss]), file=file)\n"
        "    plain(self)\n"
        "FaceTrainer.after_step = after_step\n"
        "train_net.main(sys.argv[1:])\n"
    )
    return [sys.executable, "-W", "ignore", str(script)]


def losses(folder: Path) -> dict[int, float]:
    """Loss by iteration; one that was run again after a kill must have had the same loss."""
    found: dict[int, float] = {}
    for line in (folder / "losses.jsonl").read_text().splitlines():
        iteration, loss = json.loads(line)
        assert found.setdefault(iteration, loss) == loss, iteration
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.long)])
def test_killed_runs_end_like_uninterrupted_ones(
    command: list[str], words: Callable[..., list[str]], tmp_path: Path, workers: int, kills: int
) -> None:
    rng = np.random.default_rng(workers)

    def run(folder: Path, kill_after: float | None = None) -> bool:
        """Whether the run came to its end; kills it, and its loaders, some time after its start."""
        line = words(
            *("OUTPUT_DIR", folder, "SOLVER.MAX_ITER", ITERATIONS, "SOLVER.STEPS", (8,)),
            *("SOLVER.CHECKPOINT_PERIOD", 2, "DATALOADER.NUM_WORKERS", workers),
            *("TEST.BEST_METRIC", "", "DATASETS.TEST", (), "SOLVER.EMA.ENABLED", True),
            flags=("--resume",),
        )
        with (tmp_path / "out.txt").open("wb") as out:
            process = subprocess.Popen(
                [*command, *line], stdout=out, stderr=out, start_new_session=True
            )
            deadline = time.monotonic() + 120
            if kill_after is not None:
                # The clock starts when training does; importing takes most of the time.
                while b"Starting training" not in (tmp_path / "out.txt").read_bytes():
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                time.sleep(kill_after)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            code = process.wait(timeout=120)
        if code not in (0, -signal.SIGKILL):
            raise AssertionError((tmp_path / "out.txt").read_text()[-3000:])
        return code == 0

    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert run(whole)
    seconds = json.loads((whole / "metrics.json").read_text().splitlines()[-1])["time"]
    killed = 0
    while killed < kills:
        if run(torn, rng.uniform(0, ITERATIONS / 2 * seconds)):
            (torn / "last_checkpoint").unlink()  # it came through; start over
        else:
            killed += 1
    while not run(torn):
        pass
    a, b = (torch.load(f / "model_final.pth", weights_only=True) for f in (whole, torn))
    assert all(torch.equal(value, b["model"][name]) for name, value in a["model"].items())
    trained = [saved["trainer"]["ema"]["weights"] for saved in (a, b)]
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
    for key, state in a["trainer"]["_trainer"]["optimizer"]["state"].items():
        other = b["trainer"]["_trainer"]["optimizer"]["state"][key]
        assert torch.equal(state["momentum_buffer"], other["momentum_buffer"])
    assert len(losses(whole)) == ITERATIONS
    assert losses(whole) == losses(torn)
