from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import EventStorage
from helpers.killed_run import leave_half
from helpers.train_script import write_train_script
from torch import nn

from face_d2 import train_net
from face_d2.engine.hooks import BestCheckpoint
from face_d2.engine.preflight import check_one_class
from face_d2.engine.replay import load_batch
from face_d2.engine.trainer import FaceTrainer

Words = Callable[..., list[str]]


def parse(words: list[str]) -> argparse.Namespace:
    return train_net.parser().parse_args(words)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


@pytest.mark.parametrize("config", ["df2s2", "lffd"])
def test_trains_evaluates_and_keeps_what_detectron2_users_expect(
    words: Words, tmp_path: Path, config: str
) -> None:
    overrides = ("TEST.EVAL_PERIOD", 2, "TEST.BEST_METRIC", "bbox/AP")
    train_net.main(words(*overrides, config=config))
    run = tmp_path / "run"
    for name in ("config.yaml", "log.txt", "last_checkpoint", "model_final.pth"):
        assert (run / name).is_file(), name
    predictions = run / "inference" / "small_val" / "predictions"
    assert len(list(predictions.rglob("*.txt"))) == 4
    evaluated = [row for row in metrics(run) if "widerface/AP_hard" in row]
    assert evaluated
    names = {"widerface/AP_easy", "widerface/AP_medium", "widerface/AP_hard", "bbox/AP50"}
    assert names <= set(evaluated[-1])
    best = torch.load(run / "model_best.pth", weights_only=True)
    assert {"model", "iteration", "bbox/AP"} == set(best)

    train_net.main(
        words("MODEL.WEIGHTS", run / "model_final.pth", flags=("--eval-only",), config=config)
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("config", ["df2s2", "lffd"])
def test_resumed_training_equals_uninterrupted(
    words: Words, tmp_path: Path, config: str, workers: int
) -> None:
    """Weights, momentum, schedule, order of the images and their augmentation come back."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    settings = ("DATALOADER.NUM_WORKERS", workers, "TEST.BEST_METRIC", "")
    train_net.main(words(*settings, "OUTPUT_DIR", whole, config=config))
    leave_half(whole, halves)
    train_net.main(words(*settings, "OUTPUT_DIR", halves, flags=("--resume",), config=config))
    a, b = (torch.load(folder / "model_final.pth", weights_only=True) for folder in (whole, halves))
    assert all(torch.equal(value, b["model"][name]) for name, value in a["model"].items())
    momenta = [run["trainer"]["_trainer"]["optimizer"]["state"] for run in (a, b)]
    for key, state in momenta[0].items():
        assert torch.equal(state["momentum_buffer"], momenta[1][key]["momentum_buffer"])


@pytest.mark.parametrize("config", ["df2s2", "lffd"])
def test_weights_have_channels_last_on_a_cpu(words: Words, config: str) -> None:
    model = FaceTrainer.build_model(train_net.load_cfg(parse(words(config=config))))
    kernels = [
        m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size > (1, 1)
    ]
    assert len(kernels) > 10
    assert all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)


def test_an_unseeded_run_resumes_in_its_own_order(words: Words, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first = FaceTrainer(train_net.load_cfg(parse(words("SEED", -1))))
    first.iter = 2
    first.checkpointer.save("model_0000002", iteration=2)
    second = FaceTrainer(train_net.load_cfg(parse(words("SEED", -1))))
    assert second._loader.batches.seed != first._loader.batches.seed
    second.resume_or_load(resume=True)
    assert second._loader.batches.seed == first._loader.batches.seed
    assert second._loader.batches.start == 3


@pytest.mark.parametrize("config", ["df2s2", "lffd"])
def test_a_nonfinite_loss_is_kept_to_be_run_again(
    words: Words, tmp_path: Path, config: str
) -> None:
    overrides = ("SOLVER.BASE_LR", 1e12, "SOLVER.WARMUP_ITERS", 0, "SOLVER.MAX_ITER", 20)
    line = words(*overrides, "SOLVER.CLIP_GRADIENTS.ENABLED", False, config=config)
    with pytest.raises(FloatingPointError, match=r"\.jpg.*nonfinite_\d+\.pth") as raised:
        train_net.main(line)
    (dump,) = (tmp_path / "run").glob("nonfinite_*.pth")
    batch, weights = load_batch(dump)
    assert all(item["file_name"] in str(raised.value) for item in batch)
    cfg = train_net.load_cfg(parse(line))
    model = FaceTrainer.build_model(cfg)
    model.load_state_dict(weights)
    with EventStorage():
        assert not torch.isfinite(sum(model.train()(batch).values()))


def test_two_processes_on_the_cpu(words: Words, small_set: Path, tmp_path: Path) -> None:
    """gloo workers train, gather their detections, and evaluate every image once."""
    script = write_train_script(tmp_path, small_set)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), *words(flags=("--num-processes", "2"))],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "World size: 2" in run.stdout + run.stderr
    row = [row for row in metrics(tmp_path / "run") if "bbox/AP" in row][-1]
    assert "widerface/AP_hard" in row
    folder = tmp_path / "run" / "inference" / "small_val" / "predictions"
    assert len(list(folder.rglob("*.txt"))) == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--eval-only",), "MODEL.WEIGHTS"),
        (("--num-gpus", "64"), "CUDA devices"),
        (("--num-gpus", "1", "--num-processes", "2"), "--num-gpus 0"),
        (("--num-machines", "2"), "--dist-url"),
    ],
)
def test_impossible_commands_are_explained(
    words: Words, flags: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        train_net.main(words(flags=flags))


def test_flag_behind_the_pairs_is_not_swallowed(words: Words) -> None:
    with pytest.raises(SystemExit, match="--resume must come before"):
        train_net.main([*words(), "--resume"])


def test_a_shipped_config_by_its_name(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As anywhere else; what runs is given the file's path."""
    given: list[str] = []
    monkeypatch.setattr(train_net, "launch", lambda work, args: given.append(args.config_file))
    monkeypatch.chdir(tmp_path)
    train_net.main(["--config-file", "quick/df2s2_synth.yaml", *words()[2:]])
    assert given == [words()[1]]
    with pytest.raises(SystemExit, match=r"no shipped config 'quick/x.yaml'; there are: .*synth"):
        train_net.main(["--config-file", "quick/x.yaml"])


def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    """The name of a shipped config is no _BASE_."""
    (tmp_path / "x.yaml").write_text("_BASE_: df2s2/df2s2_R50_FFP.yaml\n")
    message = r"x\.yaml: its _BASE_ .*R50_FFP\.yaml does not exist.*shipped configs are in /"
    with pytest.raises(SystemExit, match=message):
        train_net.main(["--config-file", str(tmp_path / "x.yaml")])


def test_missing_config_file_and_unknown_mapper(words: Words) -> None:
    with pytest.raises(SystemExit, match="--config-file"):
        train_net.main(["--num-gpus", "0"])
    with pytest.raises(ValueError, match=r"INPUT\.MAPPER.*face_crop"):
        train_net.main(words("INPUT.MAPPER", "mosaic"))
    with pytest.raises(ValueError, match=r"SAMPLER_TRAIN.*TrainingSampler"):
        train_net.main(words("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"))


class _Storage:
    def __init__(self) -> None:
        self.values: dict[str, tuple[float, int]] = {}

    def latest(self) -> dict[str, tuple[float, int]]:
        return self.values


class _Trainer:
    def __init__(self, start_iter: int = 0) -> None:
        self.start_iter, self.storage = start_iter, _Storage()


def test_best_checkpoint_survives_a_resume(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)

    def hook(trainer: _Trainer) -> BestCheckpoint:
        result = BestCheckpoint(model, tmp_path, "m/AP")
        result.trainer = trainer
        result.before_train()
        return result

    def value() -> float:
        return torch.load(tmp_path / "model_best.pth", weights_only=True)["m/AP"]

    first = _Trainer()
    keeper = hook(first)
    keeper.after_step()
    assert not (tmp_path / "model_best.pth").exists()
    for iteration, ap in enumerate([3.0, 7.0, float("nan"), 5.0]):
        first.storage.values["m/AP"] = (ap, iteration)
        keeper.after_step()
    assert value() == 7.0
    resumed = _Trainer(start_iter=4)
    keeper = hook(resumed)
    resumed.storage.values["m/AP"] = (6.0, 4)
    keeper.after_step()
    assert value() == 7.0
    fresh = _Trainer()
    keeper = hook(fresh)
    fresh.storage.values["m/AP"] = (2.0, 0)
    keeper.after_train()
    assert value() == 2.0


def test_misspelled_metric_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = _Trainer()
    trainer.storage.values["bbox/AP"] = (1.0, 0)
    keeper = BestCheckpoint(torch.nn.Linear(1, 1), tmp_path, "widerface/AP_hart")
    keeper.trainer = trainer
    keeper.after_step()
    keeper.after_step()
    assert caplog.text.count("widerface/AP_hart") == 1


def test_weights_of_another_network(words: Words, tmp_path: Path) -> None:
    """Detectron2 would log it, and evaluate or train a random network."""
    cfg = train_net.load_cfg(parse(words(config="lffd")))
    torch.save({"model": FaceTrainer.build_model(cfg).state_dict()}, tmp_path / "lffd.pth")
    weights = ("MODEL.WEIGHTS", tmp_path / "lffd.pth")
    with pytest.raises(ValueError, match=r"lffd\.pth: not weights of this config's network"):
        train_net.main(words(*weights, flags=("--eval-only",)))
    with pytest.raises(ValueError, match=r"lffd\.pth holds nothing"):
        train_net.main(words(*weights))
    assert not (tmp_path / "run" / "last_checkpoint").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("SOLVER.MAX_ITRE", 3), "did you mean SOLVER.MAX_ITER"),
        (("SOLVER.MAX_ITER", "many"), "SOLVER.MAX_ITER"),
        (("SOLVER.MAX_ITER",), "odd length"),
    ],
)
def test_mistakes_in_keys_are_one_line(
    words: Words, overrides: tuple[object, ...], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        train_net.main(words(*overrides))


def register(name: str, classes: list[str], records: list[dict[str, Any]]) -> None:
    def load() -> list[dict[str, Any]]:
        MetadataCatalog.get(name).set(thing_classes=classes)  # as Detectron2's COCO reader does
        return records

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type="widerface")


def test_mistakes_in_data_sets_are_found_before_the_training(words: Words, tmp_path: Path) -> None:
    records = DatasetCatalog.get("small_train")
    several, empty = f"several_{tmp_path.name}", f"empty_{tmp_path.name}"
    gone = f"gone_{tmp_path.name}"
    register(gone, ["face"], [{**records[0], "file_name": "/nowhere/a.jpg"}, records[1]])
    register(several, ["face", "mask"], records)
    register(empty, ["face"], [])
    for key, name, message in (
        ("TRAIN", "widerface_trian", "did you mean .*widerface_train"),
        ("TRAIN", several, "classes face, mask; DF2S2 knows faces alone"),
        ("TEST", "widerface_vall", "did you mean .*widerface_val"),
        ("TEST", empty, "holds no images"),
        ("TRAIN", gone, r"gone_.*: 1 of 2 images are missing, for example /nowhere/a\.jpg"),
        ("TEST", gone, r"gone_.*: 1 of 2 images are missing, for example /nowhere/a\.jpg"),
        ("TEST", "coco_2017_val", "coco"),
    ):
        with pytest.raises((ValueError, FileNotFoundError, SystemExit), match=message):
            train_net.main(words(f"DATASETS.{key}", (name,)))
    assert not (tmp_path / "run" / "last_checkpoint").exists()
    check_one_class(nn.Linear(1, 1), [several])  # a detector of another project may know both


def test_a_batch_that_the_processes_cannot_share_is_refused(
    words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = train_net.load_cfg(parse(words("SOLVER.IMS_PER_BATCH", 4)))
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH 4 cannot be .* evenly to 3 processes"):
        FaceTrainer.build_train_loader(cfg)


def test_classes_and_missing_annotations_are_found_in_the_records(
    words: Words, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data sets that were registered without the names of their classes."""
    monkeypatch.setattr(logging.getLogger("face_d2"), "propagate", True)
    records = DatasetCatalog.get("small_train")
    name = f"unnamed_{tmp_path.name}"
    held = list(records)
    DatasetCatalog.register(name, lambda: held)
    cfg = train_net.load_cfg(parse(words("DATASETS.TRAIN", (name,))))
    face = records[0]["annotations"][0]
    held[0] = {**records[0], "annotations": [face, {**face, "category_id": 2}]}
    with pytest.raises(ValueError, match=r"categories \[0, 2\], and all would be taken for faces"):
        FaceTrainer.build_train_loader(cfg)
    held[:] = [{**record, "annotations": []} for record in records]
    FaceTrainer.build_train_loader(cfg)
    assert f"DATASETS.TRAIN {name} has no faces" in caplog.text
    del held[0]["annotations"]
    with pytest.raises(ValueError, match=rf"{records[0]['file_name']} has no 'annotations'"):
        FaceTrainer.build_train_loader(cfg)


@pytest.mark.parametrize("key", ["MASK_ON", "KEYPOINT_ON"])
def test_boxes_are_all_that_the_trainer_reads(words: Words, key: str) -> None:
    cfg = train_net.load_cfg(parse(words(f"MODEL.{key}", True)))
    with pytest.raises(ValueError, match=rf"MODEL\.{key} is True.*boxes alone"):
        FaceTrainer.build_train_loader(cfg)


def test_a_config_of_another_project_lacks_keys() -> None:
    message = r"no INPUT\.MAPPER\. Call face_d2\.config\.add_face_config\(cfg\) first"
    with pytest.raises(ValueError, match=message):
        FaceTrainer(get_cfg())


def test_a_run_of_another_trainer_or_of_other_parameters_is_not_resumed(words: Words) -> None:
    cfg = train_net.load_cfg(parse(words(config="lffd")))
    Path(cfg.OUTPUT_DIR).mkdir()
    trainer = FaceTrainer(cfg)
    state = trainer.state_dict()
    with pytest.raises(ValueError, match=r"another trainer.*MODEL\.WEIGHTS"):
        trainer.load_state_dict({key: state[key] for key in state if key != "_trainer"})
    state["_trainer"]["optimizer"]["param_groups"].pop()
    with pytest.raises(ValueError, match=r"trains other parameters.*FREEZE_AT"):
        trainer.load_state_dict(state)


def test_labels_of_ones_own_are_tested_by_their_notation(words: Words, small_set: Path) -> None:
    text = small_set / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    name = f"wider:{text}:{small_set}/WIDER_val/images/."
    cfg = train_net.load_cfg(parse(words()))
    assert len(FaceTrainer.build_test_loader(cfg, name)) == 4


def test_labels_of_ones_own_are_trained_and_evaluated_on(
    words: Words, small_set: Path, tmp_path: Path
) -> None:
    text = small_set / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    name = f"wider:{text}:{small_set / 'WIDER_val' / 'images'}"
    overrides = ("SOLVER.MAX_ITER", 2, "DATASETS.TRAIN", (name,), "DATASETS.TEST", (name,))
    train_net.main(words(*overrides))
    (report,) = (tmp_path / "run" / "inference").glob("*/widerface.json")
    assert json.loads(report.read_text())["dataset"] == name
    assert f"{name}: {text} (wider)" in (tmp_path / "run" / "log.txt").read_text()
    (tmp_path / "elsewhere").mkdir()
    wrong = f"wider:{text}:{tmp_path / 'elsewhere'}"
    weights = ("MODEL.WEIGHTS", tmp_path / "run" / "model_final.pth")
    with pytest.raises(SystemExit, match="4 of 4 annotated images are missing"):
        train_net.main(words(*weights, "DATASETS.TEST", (wrong,), flags=("--eval-only",)))


def test_a_runs_log_is_its_own(words: Words, tmp_path: Path) -> None:
    """Of two runs in one process, and of two in the same folder."""
    for name in ("a", "b", "a"):
        train_net.main(words("OUTPUT_DIR", tmp_path / name, "SOLVER.MAX_ITER", 1))
    logs = {name: (tmp_path / name / "log.txt").read_text() for name in ("a", "b")}
    finals = {name: log.count("Saving checkpoint to") for name, log in logs.items()}
    assert finals == {"a": 2, "b": 1}
    assert str(tmp_path / "b") not in logs["a"]
    assert str(tmp_path / "a") not in logs["b"]


@pytest.mark.parametrize("config", ["df2s2_lite0", "lffd_20L5S"])
def test_the_fine_tuning_of_the_demo_starts_from_shipped_weights(
    words: Words, tmp_path: Path, config: str
) -> None:
    """After one step of a tiny rate, the shipped detectors still find drawn faces."""
    small = ("SOLVER.MAX_ITER", 1, "SOLVER.STEPS", (), "SOLVER.BASE_LR", 1e-6)
    train_net.main(words(*small, "INPUT.FACE_CROP.SIZE", 96, config=config))
    report = tmp_path / "run" / "inference" / "small_val" / "widerface.json"
    assert json.loads(report.read_text())["AP_medium"] > 30  # random weights: below 5
