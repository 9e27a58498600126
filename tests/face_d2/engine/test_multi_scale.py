"""``TEST.AUG.ENABLED True`` in training and with ``--eval-only``: results, files and protocols."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from face_d2 import train_net
from face_d2.engine.trainer import FaceTrainer
from face_d2.modeling.tta import search_scales

Words = Callable[..., list[str]]
AUG = ("TEST.AUG.ENABLED", True, "TEST.AUG.SCALES", [0.5, 1.0], "TEST.AUG.FLIP", False)


def protocol(run: Path, folder: str) -> dict[str, str]:
    return json.loads((run / folder / "small_val" / "widerface.json").read_text())["protocol"]


@pytest.mark.parametrize("config", ["df2s2", "lffd"])
def test_results_of_both_stand_side_by_side(words: Words, tmp_path: Path, config: str) -> None:
    run = tmp_path / "run"
    size = ("INPUT.MIN_SIZE_TEST", 200)
    train_net.main(words(*AUG, *size, config=config))
    rows = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    names = {"widerface/AP_hard", "widerface_TTA/AP_hard", "bbox/AP", "bbox_TTA/AP"}
    assert names <= set(rows[-1])
    assert protocol(run, "inference")["test-time augmentation"] == "none"
    assert protocol(run, "inference")["image size"].startswith("shorter side 200")
    multi = protocol(run, "inference_TTA")
    assert multi["image size"].startswith("original")
    assert "SCALES [0.5, 1.0]" in multi["test-time augmentation"]
    assert "FLIP False" in multi["test-time augmentation"]
    assert "MIN_SIZES" not in multi["test-time augmentation"]
    for folder in ("inference", "inference_TTA"):
        assert len(list((run / folder / "small_val/predictions").rglob("*.txt"))) == 4

    again = tmp_path / "again"
    weights = ("MODEL.WEIGHTS", run / "model_final.pth", "OUTPUT_DIR", again)
    train_net.main(words(*AUG, *size, *weights, flags=("--eval-only",), config=config))
    for folder in ("inference", "inference_TTA"):
        first, second = (
            {f.name: f.read_text() for f in (root / folder).rglob("*.txt")} for root in (run, again)
        )
        assert first == second


def test_the_command_of_the_documentation_is_understood(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (repo / "docs" / "multi_scale.md").read_text()
    (command,) = [line for line in text.splitlines() if line.startswith("python tools/train_net")]
    monkeypatch.chdir(repo)
    cfg = train_net.load_cfg(train_net.parser().parse_args(shlex.split(command)[2:]))
    assert cfg.TEST.AUG.ENABLED
    scales = [(scale.factor, scale.face_range) for scale in search_scales(cfg)]
    assert scales == [(0.5, (40, math.inf)), (1.0, (12, math.inf)), (2.0, (0, 60))]


@pytest.mark.parametrize("flags", [(), ("--eval-only",)])
def test_a_bad_key_is_reported_first(words: Words, tmp_path: Path, flags: tuple[str, ...]) -> None:
    cfg = train_net.load_cfg(train_net.parser().parse_args(words()))
    weights = tmp_path / "weights.pth"
    torch.save({"model": FaceTrainer.build_model(cfg).state_dict()}, weights)
    overrides = ("TEST.AUG.ENABLED", True, "TEST.AUG.MERGE", "soft", "MODEL.WEIGHTS", weights)
    with pytest.raises(ValueError, match=r"TEST\.AUG\.MERGE is 'soft'"):
        train_net.main(words(*overrides, flags=flags))
    assert not (tmp_path / "run" / "inference").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()
