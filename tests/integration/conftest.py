"""Tiny data sets under the names of the examples' data, and the stock scripts of Detectron2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from helpers.tiny_sets import write_coco_set, write_wider_set

from face_d2.data.register import register_wider_face


@pytest.fixture(scope="session")
def wider_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``$DETECTRON2_DATASETS`` with a tiny WIDER FACE, registered as tiny_train and tiny_val."""
    root = tmp_path_factory.mktemp("datasets")
    for split, images in (("train", 4), ("val", 3)):
        text = write_wider_set(root / "widerface", split, images)
        register_wider_face(f"tiny_{split}", root / "widerface" / f"WIDER_{split}" / "images", text)
    return root


@pytest.fixture(scope="session")
def coco_sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Names of a COCO set with masks, and of the same with semantic maps beside them."""
    root = tmp_path_factory.mktemp("coco")
    file, folder = write_coco_set(root, 3)
    register_coco_instances("tiny_coco", {}, str(file), str(folder))

    def panoptic() -> list[dict[str, Any]]:
        records = load_coco_json(str(file), str(folder), "tiny_panoptic")
        for record in records:
            name = Path(record["file_name"]).with_suffix(".png").name
            record["sem_seg_file_name"] = str(root / "semantic" / name)
        return records

    DatasetCatalog.register("tiny_panoptic", panoptic)
    MetadataCatalog.get("tiny_panoptic").set(
        evaluator_type="coco_panoptic_seg",
        json_file=str(file),
        image_root=str(folder),
        stuff_classes=["things", "square"],
        ignore_label=255,
    )
    return "tiny_coco", "tiny_panoptic"


@pytest.fixture(scope="session")
def stock_tools() -> Path:
    """Folder ``tools`` of the checkout of Detectron2 that is installed."""
    folder = os.environ.get("DETECTRON2_TOOLS")
    if not folder:
        pytest.skip("DETECTRON2_TOOLS is not set: it names the folder tools/ of a Detectron2")
    return Path(folder)
