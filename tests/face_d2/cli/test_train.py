"""``face-d2-train``: which way a command line goes, and the training on own pictures."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from helpers.label_files import WRITERS, Boxes, write_coco, write_pictures, write_wider
from helpers.recorded_losses import build_trainer, losses_of
from helpers.tiny_configs import TINY_LFFD, tiny_lffd

from face_d2 import train_net
from face_d2.cli.train import main
from face_d2.config import load_config
from face_d2.engine.trainer import FaceTrainer
from face_d2.pretrained import PRETRAINED

pytest.importorskip("onnx", reason="onnx is not installed (the extra [onnx])")
pytest.importorskip("plotly", reason="plotly is not installed (the extra [compare])")

from face_d2.data.catalog import register_data_sets
from face_d2.data.labels import read_labels
from face_d2.finetune import outcome, pace
from face_d2.finetune.choices import Choices, configure
from face_d2.finetune.data import in_validation, read_training_data
from face_d2.finetune.outcome import keep
from face_d2.finetune.pace import Length, read_losses


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Boxes]:
    folder = tmp_path_factory.mktemp("pictures")
    return folder, write_pictures(folder, 24)


@pytest.fixture(scope="module")
def coco(pictures: tuple[Path, Boxes]) -> str:
    return write_coco(*pictures)


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    cfg = load_config(PRETRAINED["lffd-20l5s"].config, TINY_LFFD)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save({"model": build_model(cfg).state_dict()}, path)
    return str(path)


@pytest.fixture
def command(coco: str, tiny_weights: str, tmp_path: Path) -> list[str]:
    """A command line of eight iterations."""
    words = ["--data", coco, "--model", "lffd-20l5s", "--output", str(tmp_path / "out")]
    return [*words, *TINY_LFFD, "MODEL.WEIGHTS", tiny_weights, "SOLVER.MAX_ITER", "8"]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that ends with status 2."""
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1, text
    return text


@pytest.mark.parametrize(
    "words", [["--config-file", "a.yaml", "--num-gpus", "0"], ["--num-gpus", "2"], ["--eval-only"]]
)
def test_a_command_line_without_data_is_that_of_detectron2(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(train_net, "main", seen.append)
    assert main(words) == 0
    assert seen == [words]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--data"),
        (["--val", "faces"], "--data"),
        (["--data", "x", "--time", "30"], "30m"),
        (["--data", "x", "--time", "m30"], "30m"),
        (["--data", "x", "--recall", "90"], "between 0 and 1"),
        (["--data", "x", "--model", "yolo"], "lffd-20l5s"),
        (["--data", "x", "--config-file", "y.yaml"], "DATASETS.TRAIN"),
        (["--data", "x", "--frobnicate"], "--frobnicate"),
        (["--data", "x", "SOLVER.BASE_LR"], "SOLVER.BASE_LR has no value"),
        (["--data", "no/such/place"], "no/such/place"),
        (["--data", "x", "OUTPUT_DIR", "y"], "--output"),
        (["--data", "x", "DATASETS.TEST", "('y',)"], "--val"),
        (["--data", "x", "--time", "5m", "SOLVER.MAX_ITER", "9"], "SOLVER.MAX_ITER"),
        (["--data", "x", "--resume"], "no run"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(words, capsys)


def test_an_unknown_key_is_one_line_and_status_2(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean SOLVER.BASE_LR" in refused([*command, "SOLVER.BASE_LT", "1"], capsys)


def test_missing_pictures_are_refused_by_number_and_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notation = write_coco(tmp_path, write_pictures(tmp_path, 12))
    for number in (1, 4, 7):
        (tmp_path / f"images/street/{number:03}.jpg").unlink()
    text = refused(["--data", notation, "--output", str(tmp_path / "out")], capsys)
    assert "3 of 12" in text
    assert "street/001.jpg" in text


@pytest.mark.parametrize("form", ["coco", "registered"])
def test_a_config_file_with_missing_pictures_is_refused_before_any_process_starts(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = write_pictures(tmp_path, 12)
    name = write_coco(tmp_path, boxes)
    if form == "registered":
        from face_d2.data.register import register_wider_face

        name = f"missing_{tmp_path.name}"
        write_wider(tmp_path, boxes)
        register_wider_face(name, tmp_path / "images", tmp_path / "list_bbx_gt.txt")
    for number in (1, 4, 7):
        (tmp_path / f"images/street/{number:03}.jpg").unlink()
    monkeypatch.setattr(train_net, "launch", lambda *_: pytest.fail("a process was started"))
    (tmp_path / "config.yaml").write_text(tiny_lffd().dump())
    words = ["--config-file", str(tmp_path / "config.yaml"), "DATASETS.TRAIN", f"('{name}',)"]
    with pytest.raises(SystemExit, match=r"3 of 12 .*street/001.jpg") as stopped:
        main(words)
    assert "\n" not in str(stopped.value)


def test_the_validation_part_depends_on_the_name_alone(tmp_path: Path) -> None:
    parts: dict[int, set[str]] = {}
    for count in (30, 40):
        folder = tmp_path / str(count)
        notation = write_wider(folder, write_pictures(folder, count))
        data = read_training_data(notation, None, folder / "data")
        chosen = read_labels(data.val)
        parts[count] = {chosen.relative_name(image) for image in chosen.images}
        kept = read_labels(data.train)
        others = {kept.relative_name(image) for image in kept.images}
        assert len(parts[count] | others) == count
        assert not parts[count] & others
        assert data.val_images == len(parts[count])
    assert parts[30] <= parts[40]
    for name in parts[40]:
        assert int.from_bytes(hashlib.sha1(name.encode()).digest(), "big") % 5 == 0
    added = {f"{'street' if n % 3 else 'hall'}/{n:03}.jpg" for n in range(30, 40)}
    assert parts[40] - parts[30] == {name for name in added if in_validation(name)}


def test_pictures_in_both_sets_are_told(coco: str, tmp_path: Path) -> None:
    data = read_training_data(coco, coco, tmp_path)
    assert any("24 pictures are in both" in line for line in data.description)


def test_the_shipped_backbone_keeps_its_statistics(coco: str) -> None:
    """It was trained with them; a training from ImageNet weights trains its own."""
    register_data_sets([coco])
    words = ("SOLVER.MAX_ITER", "8")
    cfg = configure(Choices("df2s2-lite0", (), ()), words, train=coco, val=coco, output="none")
    demo = load_config("quick/df2s2_lite0_synth.yaml")
    assert [each.MODEL.TIMM.NORM for each in (cfg, demo)] == ["FrozenBN", "FrozenBN"]
    assert load_config(PRETRAINED["df2s2-lite0"].config).MODEL.TIMM.NORM == "BN"


def test_the_better_weights_are_kept() -> None:
    assert keep(70.0, 70.5, 9).trained
    assert not keep(70.0, 69.9, 9).trained
    assert not keep(70.0, 70.0, 9).trained
    assert "70.00" in keep(70.0, 70.5, 9).sentence


def test_a_run_leaves_a_detector_a_card_and_a_report(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    out = tmp_path / "out"
    for name in ("model.onnx", "model.pth", "model.md", "config.yaml", "loss.png", "log.txt"):
        assert (out / name).is_file(), name
    assert [row[0] for row in read_losses(out / "loss.csv")] == list(range(8))
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    results = json.loads((out / "report" / "results.json").read_text())
    card = (out / "model.md").read_text(encoding="utf-8")
    assert set(results["detectors"]) == {"tiny.pth", "fine-tuned"}
    assert '"learning_rate":' in page
    state = json.loads((out / "run.json").read_text())
    assert state["finished"]
    assert f"{state['average_precision']['before']:.2f} before" in card
    assert "8 iterations of 2 crops" in card
    assert not list(out.glob("model_*.pth"))

    printed = capsys.readouterr().out
    assert "pictures with" in printed
    assert "d2.engine" not in printed  # that is in log.txt
    assert "Starting training" in (out / "log.txt").read_text(encoding="utf-8")

    cfg = load_config(out / "config.yaml", ["MODEL.WEIGHTS", str(out / "model.pth")])
    assert cfg.SOLVER.MAX_ITER == 8
    assert pytest.approx(0.05 * 0.01 * 2 / 8) == cfg.SOLVER.BASE_LR
    from face_d2 import FaceDetector

    picture = np.zeros((80, 96, 3), np.uint8)
    one = FaceDetector.from_onnx(out / "model.onnx").detect(picture)
    other = FaceDetector.from_config(out / "config.yaml", out / "model.pth").detect(picture)
    assert len(one.boxes) == len(other.boxes)

    assert main(command) == 0  # again
    printed = capsys.readouterr().out
    assert "finished" in printed
    assert "before the training" not in printed.lower()
    changed = [*command[:-1], "9"]
    assert "other values of KEY VALUE pairs;" in refused(changed, capsys)


@pytest.mark.parametrize("better", ["start", "end"])
def test_the_files_are_those_of_the_better_weights(
    better: str,
    command: list[str],
    tiny_weights: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = {"start": [50.0, 40.0], "end": [40.0, 50.0]}[better]
    monkeypatch.setattr(
        outcome.Validation, "average_precision", lambda *_: scores.pop(0), raising=True
    )
    assert main(command) == 0
    kept = torch.load(tmp_path / "out" / "model.pth", weights_only=True)["model"]
    begun = torch.load(tiny_weights, weights_only=True)["model"]
    same = all(torch.equal(kept[name], begun[name]) for name in begun)
    assert same == (better == "start")
    assert not scores
    card = (tmp_path / "out" / "model.md").read_text(encoding="utf-8")
    assert ("The start is kept" in card) == (better == "start")


def test_the_same_command_continues_a_stopped_run(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = [*command]
    whole[whole.index("--output") + 1] = str(tmp_path / "whole")
    assert main(whole) == 0
    step = FaceTrainer.run_step

    def stopped_at_five(trainer: FaceTrainer) -> None:
        if trainer.iter == 5:
            raise KeyboardInterrupt
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(FaceTrainer, "run_step", stopped_at_five)
        patch.setattr("face_d2.engine.hooks.StopOnSignal._is_stepping", lambda _: False)
        patch.setattr("face_d2.engine.hooks.StopOnSignal._received", 2, raising=False)
        keep_checkpoint(patch)
        assert main([*command, "SOLVER.CHECKPOINT_PERIOD", "3"]) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert not json.loads((tmp_path / "out" / "run.json").read_text())["finished"]
    assert main([*command, "SOLVER.CHECKPOINT_PERIOD", "3", "--resume"]) == 0
    assert "a run was stopped here" in capsys.readouterr().out
    rows, expected = (read_losses(tmp_path / name / "loss.csv") for name in ("out", "whole"))
    assert rows == expected


def keep_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """Leaves the checkpoint of the fifth step to PeriodicCheckpoints alone."""
    patch.setattr("face_d2.engine.hooks.StopOnSignal.after_train", lambda _: None)


def test_an_evaluation_takes_as_many_pictures_as_its_time_allows(
    coco: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(lambda _: 1.0)
    monkeypatch.setattr(outcome, "time", clock)
    validation = outcome.Validation(coco, tmp_path, 0.9)
    searched: set[str] = set()

    def search(self: outcome.Validation, *_: object) -> None:
        clock.now += len(set(self.images.files) - searched)
        searched.update(self.images.files)

    monkeypatch.setattr(outcome.Validation, "_search", search)
    validation._choose_pictures("x", tmp_path, 15.0)
    assert 12 <= len(validation.images.files) <= 15
    assert clock.now <= 15
    assert validation.seconds == 1.0
    validation._choose_pictures("x", tmp_path, 1000.0)
    assert len(validation.images.files) == len(searched)


class Clock:
    """``time`` of the pace: a step takes as long as the test says."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.now = 0.0
        self.seconds = seconds

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "deadline", "least", "most"),
    [
        (lambda step: 1.0, 30.0, 26, 30),
        (lambda step: 1.0 if step < 12 else 3.0, 30.0, 14, 19),
        (lambda step: 2.0 if step < 6 else 0.5, 40.0, 50, 61),
        (lambda step: 15.0, 30.0, 4, 6),  # the first steps alone take longer
    ],
)
def test_a_training_ends_in_time_whatever_the_speed(
    seconds: Callable[[int], float],
    deadline: float,
    least: int,
    most: int,
    coco: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(seconds)
    monkeypatch.setattr(pace, "time", clock)
    step = FaceTrainer.run_step

    def timed(trainer: FaceTrainer) -> None:
        step(trainer)
        clock.now += clock.seconds(trainer.iter)

    monkeypatch.setattr(FaceTrainer, "run_step", timed)
    cfg = tiny_lffd()
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0),
            *("INPUT.SCALE_SAMPLING.SIZE", 64, "TEST.BEST_METRIC", "", "OUTPUT_DIR", str(tmp_path)),
            *("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.STEPS", ()),
            *("SOLVER.BASE_LR", 0.001, "SOLVER.CHECKPOINT_PERIOD", 1000),
        ]
    )
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (coco,), ()
    length = Length(0, deadline=deadline)
    assert pace.train(cfg, length, set()) == length.iterations
    assert least <= length.iterations <= most
    rows = read_losses(tmp_path / "loss.csv")
    assert [row[0] for row in rows] == list(range(length.iterations))
    assert (tmp_path / "model_final.pth").is_file()
    if seconds(0) < 15:
        assert 0.8 * deadline <= clock.now <= 1.1 * deadline
        assert rows[-1][2] < 0.15 * 0.001  # the cosine has come to its end


def test_one_folder_in_eight_formats_gives_the_same_losses(
    pictures: tuple[Path, Boxes], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(tiny_lffd().dump())
    losses: dict[str, Any] = {}
    for form, write in WRITERS.items():
        # Each with its own labels beside the same pictures.
        root = tmp_path / form
        shutil.copytree(pictures[0] / "images", root / "images")
        notation = write(root, pictures[1])
        words = ["--config-file", str(tmp_path / "config.yaml"), "--num-gpus", "0"]
        words += ["DATASETS.TRAIN", f"('{notation}',)", "DATASETS.TEST", "()", "SEED", "1"]
        words += ["SOLVER.MAX_ITER", "10", "SOLVER.IMS_PER_BATCH", "2"]
        words += ["INPUT.SCALE_SAMPLING.SIZE", "64", "DATALOADER.NUM_WORKERS", "0"]
        words += ["TEST.BEST_METRIC", "", "OUTPUT_DIR", str(root / "out")]
        train_net.register_data_sets([notation])
        losses[form] = losses_of(build_trainer(words))
    assert len(losses) == 8
    assert len(losses["wider"]) == 10
    for form, values in losses.items():
        assert values == losses["wider"], form
