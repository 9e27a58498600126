"""Checks before training, so that evaluation cannot fail at the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from face_d2.evaluation import build_evaluator
from face_d2.modeling.base import OneStageDetector

__all__ = ["check_files", "check_one_class", "check_test_sets"]

_EXAMPLES = 3


def check_one_class(model: object, names: Sequence[str]) -> None:
    """Checks that the data sets of a face detector have one class.

    Raises:
        ValueError: a data set has several classes, which would all be treated as faces.
    """
    if not isinstance(model, OneStageDetector):
        return
    for name in names:
        classes = MetadataCatalog.get(name).get("thing_classes", ["face"])
        if len(classes) > 1:
            raise ValueError(
                f"data set {name!r} has the classes {', '.join(classes)}; {type(model).__name__} "
                "knows faces alone and would take all for faces. "
                "coco:JSON:IMAGES:CATEGORY, or face_d2.data.coco.register_coco_faces(name, json, "
                "images, category=...), takes one class of a COCO json."
            )


def check_files(names: Sequence[str]) -> None:
    """Reads registered data sets and checks that their image files exist.

    Raises:
        FileNotFoundError: labels or images are missing; for images, the message has their number
            and examples.
        ValueError: labels are malformed.
    """
    for name in dict.fromkeys(names):
        files = [record["file_name"] for record in DatasetCatalog.get(name)]
        missing = [file for file in files if not os.path.isfile(file)]
        if missing:
            raise FileNotFoundError(
                f"{name}: {len(missing)} of {len(files)} images are missing, for example "
                f"{', '.join(missing[:_EXAMPLES])}."
            )


def check_test_sets(cfg: CfgNode) -> None:
    """Reads every test set and builds its evaluator.

    Raises:
        FileNotFoundError, ValueError: the evaluation would fail, or a test set has no images.
    """
    for name in cfg.DATASETS.TEST:
        if not DatasetCatalog.get(name):
            raise ValueError(f"test set {name!r} holds no images.")
        build_evaluator(cfg, name, Path(cfg.OUTPUT_DIR) / "inference")
