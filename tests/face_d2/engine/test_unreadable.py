"""Unreadable images in a run: replaced and counted in training, zero detections in evaluation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.image_files import UNREADABLE

from face_d2 import train_net
from face_d2.data.register import register_wider_face
from face_d2.engine.trainer import FaceTrainer

Words = Callable[..., list[str]]


@pytest.fixture
def damaged(small_set: Path, tmp_path: Path) -> Iterator[list[str]]:
    """The small set, registered as damaged_train and damaged_val; the ids of its bad val images."""
    for split in ("train", "val"):
        images = tmp_path / split
        shutil.copytree(small_set / f"WIDER_{split}" / "images", images)
        files = sorted(images.rglob("*.jpg"))
        files[0].write_bytes(UNREADABLE["truncated-jpeg"]())
        files[1].write_bytes(b"")
        register_wider_face(
            f"damaged_{split}",
            images,
            small_set / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt",
        )
    yield [str(file.relative_to(images).with_suffix("")) for file in files[:2]]
    for split in ("train", "val"):
        DatasetCatalog.remove(f"damaged_{split}")
        MetadataCatalog.remove(f"damaged_{split}")


@pytest.mark.parametrize("config", ["df2s2", "lffd"])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_without_them_and_says_so(
    words: Words, damaged: list[str], tmp_path: Path, config: str, workers: int
) -> None:
    settings = ("DATASETS.TRAIN", ("damaged_train",), "DATASETS.TEST", (), "TEST.BEST_METRIC", "")
    settings += ("SOLVER.MAX_ITER", 6, "DATALOADER.NUM_WORKERS", workers)
    train_net.main(words(*settings, "DATALOADER.MAX_BAD_FRACTION", 0.5, config=config))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "2 training images could not be decoded; others took their place" in log
    with pytest.raises(RuntimeError, match=r"of 8 training images cannot .*MAX_BAD_FRACTION 0\.1"):
        train_net.main(words(*settings, "DATALOADER.MAX_BAD_FRACTION", 0.1, config=config))


@pytest.mark.parametrize("config", ["df2s2", "lffd"])
@pytest.mark.parametrize("augmented", [False, True])
def test_evaluation_counts_them_as_zero_detections_and_names_them(
    words: Words, damaged: list[str], tmp_path: Path, config: str, augmented: bool
) -> None:
    threshold = (
        "MODEL.DF2S2.SCORE_THRESH_TEST" if config == "df2s2" else "MODEL.LFFD.SCORE_THRESH_TEST"
    )
    settings = ("DATASETS.TEST", ("damaged_val",), threshold, 0.0)
    settings += ("TEST.AUG.ENABLED", augmented, "TEST.AUG.MIN_SIZES", (0,))
    cfg = train_net.load_cfg(train_net.parser().parse_args(words(*settings, config=config)))
    torch.manual_seed(0)
    model = FaceTrainer.build_model(cfg)
    if config == "lffd":  # untrained boxes are inside out
        for branch in model.head.values():
            branch.box.bias.data.copy_(torch.tensor([1.0, 1.0, -1.0, -1.0]))
    (FaceTrainer.test_with_TTA if augmented else FaceTrainer.test)(cfg, model)
    folder = tmp_path / "run" / ("inference_TTA" if augmented else "inference") / "damaged_val"
    report = json.loads((folder / "widerface.json").read_text())
    assert sorted(report["unreadable"]) == damaged
    assert "cannot be decoded" in report["unreadable"][damaged[0]]
    found = {
        str(file.relative_to(folder / "predictions").with_suffix("")): file.read_text().split("\n")
        for file in (folder / "predictions").rglob("*.txt")
    }
    assert len(found) == 4
    for name, lines in found.items():
        assert (int(lines[1]) == 0) == (name in damaged)
