#!/usr/bin/env python
"""Shows what the detectors find, as shipped and as trained here: ``make demo``.

First the shipped detectors search the photographs of ``examples/photos``; then both are fine-tuned
on generated faces on the CPU. With ``--budget long``, small networks are trained from random
weights instead.

Leaves in ``output/demo``: ``photographs-NAME.jpg``, ``results.json``, the precision-recall curves,
a sheet of validation images with the detections of each detector side by side, and one of DF2S2's
segmentation masks.
"""

from __future__ import annotations

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from df2s2_d2.mask_sheet import mask_sheet
from face_d2 import FaceDetector
from face_d2.cli.common import CommandParser, run
from face_d2.config import get_config_file
from face_d2.data.mapper import FaceDatasetMapper, face_arrays, face_instances
from face_d2.data.register import register_wider_face
from face_d2.data.wider_face import split_paths
from face_d2.evaluation import widerface_ap
from face_d2.evaluation.evaluators import dataset_ground_truth
from face_d2.evaluation.wider_face.files import read_predictions
from face_d2.predictor.drawing import draw_faces, save_image
from face_d2.predictor.images import load_image
from face_d2.predictor.torch_backend import build_detector
from face_d2.pretrained import PRETRAINED
from face_d2.synthetic.dataset import generate, lookalike_images, synthetic_root
from face_d2.train_net import load_cfg
from face_d2.train_net import parser as train_parser
from face_d2.train_net import train_or_evaluate
from face_d2.visualization.plots import plot_precision_recall
from face_d2.visualization.sheets import SheetItem, detection_sheet

DETECTORS = ("df2s2", "lffd")
#: Configs of the budget "full"; the others train ``quick/NAME_synth.yaml``.
FINE_TUNED = {"df2s2": "quick/df2s2_lite0_synth.yaml", "lffd": "quick/lffd_20L5S_synth.yaml"}
SHOWN_SCORE = 0.5
PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photos"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "tools/demo.py",
        "Shows what the detectors find: first the shipped ones on the photographs of "
        "examples/photos, then both after a fine-tuning on generated faces on the CPU.",
        examples=("make demo", "python tools/demo.py --budget smoke --detectors lffd"),
    )
    parser.add_argument(
        "--budget",
        choices=("full", "long", "smoke"),
        default="full",
        help="full: fine-tune the shipped detectors; long: train small networks from random "
        "weights; smoke: a handful of steps from random weights, which show that everything runs "
        "and learn nothing",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of weights, crops and order (%(default)s)"
    )
    parser.add_argument(
        "--detectors", nargs="+", choices=DETECTORS, default=DETECTORS, help="one or more"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("output/demo"), metavar="DIR", help="(%(default)s)"
    )
    options = parser.parse_args(argv)
    return run(lambda: demonstrate(options))


def demonstrate(options: argparse.Namespace) -> None:
    """Searches the photographs, trains the detectors and writes the pictures."""
    started = time.monotonic()
    options.output.mkdir(parents=True, exist_ok=True)
    _search_photographs(options.output)
    overrides = _data(options)
    results: dict[str, dict[str, float]] = {}
    curves: dict[str, Any] = {}
    found: dict[str, dict[str, NDArray]] = {}
    dataset = ""
    for name in options.detectors:
        print(f"\n=== training {name} on the CPU ===", flush=True)
        begun = time.monotonic()
        cfg = _train(name, options, overrides)
        seconds = time.monotonic() - begun
        dataset = cfg.DATASETS.TEST[0]
        folder = Path(cfg.OUTPUT_DIR) / "inference" / dataset / "predictions"
        found[name] = read_predictions(folder)
        curves[name] = widerface_ap(found[name], dataset_ground_truth(dataset))
        model = build_detector(cfg, Path(cfg.OUTPUT_DIR) / "model_final.pth")
        results[name] = {
            **{f"widerface/{key}": 100 * value for key, value in curves[name].items()},
            "false_positives_per_lookalike_image": _false_positives(model, cfg, options),
            "seconds": seconds,
        }
        if name == "df2s2":
            mask_sheet(model, _training_inputs(cfg, dataset, 3), options.output / "df2s2_masks.png")
    _draw_detections(found, dataset, options.output / "detections.png")
    plot_precision_recall(curves, options.output / "pr_curves.png")
    (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    _report(results, dataset, options, time.monotonic() - started)


def _search_photographs(output: Path) -> None:
    """Draws what the shipped detectors find on the example photographs."""
    files = [PHOTOGRAPHS / name for name in ("nasa_group.jpg", "astronaut.jpg", "grace_hopper.jpg")]
    for name in PRETRAINED:
        detector = FaceDetector.from_pretrained(name, score_threshold=SHOWN_SCORE)
        drawn, count = [], 0
        for file in files:
            image = load_image(file)
            result = detector.detect(image)
            drawn.append(draw_faces(image, result))
            count += len(result.boxes)
        path = output / f"photographs-{name}.jpg"
        save_image(_side_by_side(drawn, 320), path)
        print(f"{name}: {count} faces on {len(files)} photographs, drawn in {path}", flush=True)


def _side_by_side(images: Sequence[NDArray[np.uint8]], height: int) -> NDArray[np.uint8]:
    """Images (H, W, 3) of any sizes in one row of a height."""
    row = [
        np.asarray(Image.fromarray(i).resize((round(i.shape[1] * height / i.shape[0]), height)))
        for i in images
    ]
    return np.concatenate(row, axis=1)


def _data(options: argparse.Namespace) -> list[object]:
    """Generates what is trained on; config overrides that choose it."""
    if options.budget != "smoke":
        synthetic_root()
        return []
    root = options.output / "smoke-data"
    if not (root / "widerface").is_dir():
        generate(root, train_images=24, val_images=8)
    for split in ("train", "val"):
        register_wider_face(f"widerface_smoke_{split}", *split_paths(root / "widerface", split))
    return [
        *("DATASETS.TRAIN", ("widerface_smoke_train",)),
        *("DATASETS.TEST", ("widerface_smoke_val",)),
        *("SOLVER.MAX_ITER", 4, "SOLVER.STEPS", (3,), "SOLVER.IMS_PER_BATCH", 2),
    ]


def _train(name: str, options: argparse.Namespace, overrides: list[object]) -> CfgNode:
    config = FINE_TUNED[name] if options.budget == "full" else f"quick/{name}_synth.yaml"
    words = ["--config-file", get_config_file(config), "--num-gpus", 0]
    words += ["OUTPUT_DIR", options.output / name, "SEED", options.seed, *overrides]
    args = train_parser().parse_args([str(word) for word in words])
    train_or_evaluate(args)
    return load_cfg(args)


@torch.no_grad()
def _false_positives(model: nn.Module, cfg: CfgNode, options: argparse.Namespace) -> float:
    """Detections with a score of 0.5 or more per picture of look-alikes, all of them false."""
    pictures = lookalike_images(4 if options.budget == "smoke" else 100)
    total = 0
    for picture in pictures:
        image = torch.as_tensor(picture.transpose(2, 0, 1).copy())
        found = model([{"image": image}])[0]["instances"]
        total += int((found.scores >= SHOWN_SCORE).sum())
    return total / len(pictures)


def _draw_detections(found: dict[str, dict[str, NDArray]], dataset: str, path: Path) -> None:
    """Draws every image once per detector, side by side."""
    items = []
    for record in [r for r in DatasetCatalog.get(dataset) if r["annotations"]][:12]:
        boxes, ignore = face_arrays(record["annotations"])
        image = cv2.imread(record["file_name"])
        for name, predictions in found.items():
            rows = predictions[record["image_id"]].copy()
            rows[:, 2:4] += rows[:, :2]  # XYWH to XYXY
            items.append(SheetItem(image, boxes[~ignore], boxes[ignore], rows, name))
    detection_sheet(items, path, min_score=SHOWN_SCORE)


def _training_inputs(cfg: CfgNode, dataset: str, count: int) -> list[dict[str, Any]]:
    """Validation images with their faces, as a training item holds them, the fullest first."""
    mapper = FaceDatasetMapper(cfg, is_train=False)
    records = sorted(DatasetCatalog.get(dataset), key=lambda r: -len(r["annotations"]))
    inputs = []
    for record in records[3 : 3 + count]:
        item = mapper(record)
        boxes, ignore = face_arrays(record["annotations"])
        size = tuple(item["image"].shape[-2:])
        item["instances"] = face_instances(boxes, ignore, size, clip=True)
        inputs.append(item)
    return inputs


def _report(
    results: dict[str, dict[str, float]], dataset: str, options: argparse.Namespace, seconds: float
) -> None:
    print(f"\n{'detector':10}  {'easy':>6} {'medium':>6} {'hard':>6}  false/look-alike  seconds")
    for name, row in results.items():
        print(
            f"{name:10}  {row['widerface/AP_easy']:6.1f} {row['widerface/AP_medium']:6.1f} "
            f"{row['widerface/AP_hard']:6.1f}  "
            f"{row['false_positives_per_lookalike_image']:16.2f}  {row['seconds']:7.0f}"
        )
    print(
        f"WIDER FACE protocol on {dataset} (generated; never seen in training), images as they "
        f"are, seed {options.seed}; {seconds:.0f} s in all."
    )
    if options.budget == "smoke":
        print("Zeros are expected: these networks were trained for a few steps.")
    print(
        f"Look at {options.output}/: pr_curves.png, detections.png"
        + (", df2s2_masks.png" if "df2s2" in results else "")
        + "; figures in results.json."
    )


if __name__ == "__main__":
    sys.exit(main())
