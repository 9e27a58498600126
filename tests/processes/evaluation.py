"""What the processes of tests/face_d2/evaluation/test_evaluators.py run; spawned ones import it."""

from __future__ import annotations

import face_d2.register  # isort: skip  (mends Detectron2 before its first import)

from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from face_d2.data.register import register_wider_face
from face_d2.engine.launch import leave_process_groups
from face_d2.evaluation import shards
from face_d2.evaluation.coco import FaceCOCOEvaluator
from face_d2.evaluation.evaluators import WiderFaceEvaluator

NUM_IMAGES = 7


def write_tiny(folder: Path) -> None:
    """Seven images with up to five faces each, one of them face-free."""
    generator = np.random.default_rng(0)
    lines = []
    (folder / "images" / "0--Event").mkdir(parents=True)
    for number in range(NUM_IMAGES):
        name = f"0--Event/{number}.jpg"
        cv2.imwrite(str(folder / "images" / name), np.zeros((120, 160, 3), dtype=np.uint8))
        faces = generator.integers(12, 60, (number % 6, 4))
        lines += [name, str(len(faces))]
        lines += [" ".join(map(str, face)) + " 0 0 0 0 0 0" for face in faces] or ["0 " * 10]
    (folder / "tiny_bbx_gt.txt").write_text("\n".join(lines) + "\n")


def register_tiny(folder: Path, name: str, **options) -> None:
    """Registers what :func:`write_tiny` has written."""
    register_wider_face(name, folder / "images", folder / "tiny_bbx_gt.txt", **options)


def unregister(name: str) -> None:
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def found_in(record: dict) -> Instances:
    """Detections that depend on the image alone: its faces moved a little, and two wrong ones."""
    generator = np.random.default_rng(int(record["image_id"].split("/")[1]))
    boxes = np.array([face["bbox"] for face in record["annotations"]]).reshape(-1, 4)
    boxes = np.concatenate([boxes, [[90, 5, 20, 20], [5, 90, 30, 20]]])
    boxes += generator.uniform(-4, 4, boxes.shape)
    boxes[:, 2:] += boxes[:, :2]
    instances = Instances((record["height"], record["width"]))
    instances.pred_boxes = Boxes(torch.from_numpy(boxes).float())
    instances.scores = torch.from_numpy(generator.random(len(boxes))).float()
    instances.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
    return instances


def evaluate_share(records: list[dict], name: str, output_dir: Path) -> dict:
    """Both evaluators over some of the images, two to a batch, in whatever process this is."""
    evaluators = [WiderFaceEvaluator(name, output_dir), FaceCOCOEvaluator(name, output_dir)]
    results = {}
    for evaluator in evaluators:
        evaluator.reset()
        for start in range(0, len(records), 2):
            batch = records[start : start + 2]
            evaluator.process(batch, [{"instances": found_in(record)} for record in batch])
        results.update(evaluator.evaluate())
    return results


def evaluate_in_two_processes(rank: int, folder: Path, name: str) -> None:
    """The rank-th of two shares, padded to equal length as distributed samplers pad them."""
    torch.set_num_threads(1)
    shards._BLOCK_ROWS = 8  # several rounds of gathering
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2
    )
    register_tiny(folder, name)
    records = DatasetCatalog.get(name)
    share = (records + records[:1])[rank::2]
    results = evaluate_share(share, name, folder / "two")
    torch.save(results, folder / f"results_{rank}.pt")
    leave_process_groups()
