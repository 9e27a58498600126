"""The benchmark of a training step, in a form that takes seconds."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest


def test_result_of_the_benchmark(
    repo: Path,
    small_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--rounds", "1", "--batch", "2", "--images", "8", "--workers", "0"]
    words += ["--json", str(tmp_path / "result.json"), "DATASETS.TRAIN", "('small_train',)"]
    words += ["INPUT.FACE_CROP.SIZE", "96", "INPUT.SCALE_SAMPLING.SIZE", "96"]
    monkeypatch.setattr(sys, "argv", ["train_step.py", *words])
    runpy.run_path(str(repo / "benchmarks" / "train_step.py"), run_name="__main__")
    line = capsys.readouterr().out.splitlines()[-1]
    result = json.loads(line.removeprefix("RESULT "))
    assert result == json.loads((tmp_path / "result.json").read_text())
    steps = result["steps"]["quick"]
    for times in steps["ms"].values():
        assert all(value > 0 for value in times.values())
        assert times["forward"] + times["backward"] + times["optimizer"] <= times["step"]
    assert steps["batch"] == 2
    assert all(rows["0"]["images_per_second"] > 0 for rows in result["loading"].values())
