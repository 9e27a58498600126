"""``face-d2-train --time``: the time is shared out, by a clock on which work takes what it is told.

Every picture that is searched, every step of the training and every export takes so many seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from helpers.label_files import write_coco, write_pictures
from helpers.tiny_configs import TINY_LFFD

pytest.importorskip("onnx", reason="onnx is not installed (the extra [onnx])")
pytest.importorskip("plotly", reason="plotly is not installed (the extra [compare])")

from face_d2.cli.train import main
from face_d2.config import load_config
from face_d2.engine.trainer import FaceTrainer
from face_d2.finetune import outcome, pace, run
from face_d2.finetune.pace import minutes, read_losses
from face_d2.pretrained import PRETRAINED


class Clock:
    """``time`` of the fine-tuning."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


#: Pictures of 40 that are for validation.
VALIDATION = 7
#: Makes a run on a clock: seconds of a picture, a step and an export.
OnAClock = Callable[[float, float, float], Clock]


@pytest.fixture
def on_a_clock(monkeypatch: pytest.MonkeyPatch) -> OnAClock:
    def start(picture: float, step: float, export: float) -> Clock:
        clock = Clock()
        searched: set[tuple[str, str]] = set()

        def slow(owner: Any, name: str, seconds: Callable[..., float]) -> None:
            work = getattr(owner, name)

            def timed(*words: Any, **options: Any) -> Any:
                clock.now += seconds(*words)
                return work(*words, **options)

            monkeypatch.setattr(owner, name, timed)

        def new_pictures(validation: outcome.Validation, name: str, model: Path) -> float:
            asked = {(name, file) for file in validation.images.files}
            new = len(asked - searched)
            searched.update(asked)
            return new * picture

        for module in (run, pace, outcome):
            monkeypatch.setattr(module, "time", clock)
        slow(run, "export", lambda *_: export)
        slow(FaceTrainer, "run_step", lambda _: step)
        slow(outcome.Validation, "_search", new_pictures)
        slow(run, "write_int8_file", lambda *words: (14 + 6 * words[-1]) * picture)
        return clock

    return start


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny LFFD that finds something with scores above 0.5, whatever it is shown."""
    torch.manual_seed(1)
    model = build_model(load_config(PRETRAINED["lffd-20l5s"].config, TINY_LFFD))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("score.weight"):
                parameter.normal_()
            if key.endswith("score.bias"):
                parameter.zero_()
            if key.endswith("box.bias"):
                parameter.copy_(torch.tensor([1.0, 1.0, -1.0, -1.0]))
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save({"model": model.state_dict()}, path)
    return str(path)


@pytest.fixture
def words(weights: str, tmp_path: Path) -> list[str]:
    data = write_coco(tmp_path, write_pictures(tmp_path, 40))
    where = ["--data", data, "--model", "lffd-20l5s", "--output", str(tmp_path / "out")]
    return [*where, *TINY_LFFD, "MODEL.WEIGHTS", weights]


def state_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def test_the_time_that_is_left_goes_into_training_and_int8(
    words: list[str],
    on_a_clock: OnAClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Random weights lose much in int8; how much is allowed is not what is tested.

    The start takes 2.7 s, and 17.9 s are for the rest: an export, three for the report, seven
    pictures, 4 % spare, and int8 by nine pictures, which cost as much as 14 + 6 * 9.
    """
    monkeypatch.setattr(outcome, "INT8_LOSS", 101.0)
    clock = on_a_clock(0.1, 3.0, 2.0)
    assert main([*words, "--time", "60s"]) == 0
    out = tmp_path / "out"
    # The report, which has no time of its own here, counts as three exports.
    assert 45 <= clock.now <= 60 - 3 * 2
    iterations = state_of(out)["iterations"]
    assert 10 <= iterations <= 14
    assert [row[0] for row in read_losses(out / "loss.csv")] == list(range(iterations))
    assert (out / "model_int8.onnx").is_file()
    card = (out / "model.md").read_text(encoding="utf-8")
    assert "The int8 file loses" in card
    assert "model_int8.onnx" in card
    assert (
        "Training for 39 s; 18 s are for the evaluation, the export and" in capsys.readouterr().out
    )


def test_slow_pictures_leave_no_time_for_int8_and_few_for_the_evaluation(
    words: list[str], on_a_clock: OnAClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture takes 3 of 60 seconds, so that a fifth of the time is enough for four."""
    clock = on_a_clock(3.0, 3.0, 2.0)
    assert main([*words, "--time", "60s"]) == 0
    out = tmp_path / "out"
    assert clock.now <= 60
    assert state_of(out)["validation_pictures"] == 4
    assert state_of(out)["iterations"] >= 5
    assert not (out / "model_int8.onnx").exists()
    card = (out / "model.md").read_text(encoding="utf-8")
    assert "There is no int8 file, because the time was too short; face-d2-export --int8" in card
    assert "model_int8.onnx" not in card
    printed = capsys.readouterr().out
    assert f"Evaluations use 4 of the {VALIDATION} validation pictures" in printed


def test_a_time_that_is_too_short_says_how_long_it_takes(
    words: list[str], on_a_clock: OnAClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two exports, three more for the report, two evaluations and 4 % spare."""
    on_a_clock(0.1, 3.0, 4.0)
    assert main([*words, "--time", "20s"]) == 1
    needed = 2 * 4.0 + 3 * 4.0 + 2 * VALIDATION * 0.1 + 0.04 * 20
    error = f"take about {minutes(needed)}; give at least {minutes(1.5 * needed)}.\n"
    printed = capsys.readouterr().err
    assert "\nerror: --time is too short: " in printed
    assert printed.endswith(error)
    assert not state_of(tmp_path / "out")["finished"]

    # What a stopped run has read may not change under it.
    labels = tmp_path / "coco.json"
    content = json.loads(labels.read_text())
    content["annotations"][0]["bbox"][0] += 1
    labels.write_text(json.dumps(content))
    for name in [name for name in DatasetCatalog.list() if str(tmp_path) in name]:
        DatasetCatalog.remove(name)  # as in the process of another day
        MetadataCatalog.remove(name)
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--time", "20s"])
    assert stopped.value.code == 2
    assert "the pictures or labels have changed since this run began" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        (
            {"threshold": 0.25, "precision": 0.875},
            "A score threshold of 0.250 finds 95 % of the validation faces above 10 pixels with a "
            "precision of 87.5 %; it was chosen on these pictures.",
        ),
        (
            {"threshold": None},
            "No score threshold finds 95 % of the validation faces above 10 pixels.",
        ),
    ],
)
def test_the_threshold_is_told_with_its_precision(point: dict[str, Any], sentence: str) -> None:
    assert run._threshold(point, 0.95) == sentence


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (725, "12 min 5 s"), (11400, "3 h 10 min")],
)
def test_durations_are_told_in_the_units_of_a_person(seconds: float, text: str) -> None:
    assert minutes(seconds) == text


def test_losses_are_read_up_to_the_line_that_a_killed_run_left(tmp_path: Path) -> None:
    file = tmp_path / "loss.csv"
    assert read_losses(file) == []
    file.write_text("iteration,loss,learning_rate\n0,2.5,0.001\n1,2.25,0.002\n2,2.\n")
    assert read_losses(file) == [(0, 2.5, 0.001), (1, 2.25, 0.002)]
