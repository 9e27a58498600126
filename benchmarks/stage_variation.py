"""How much the maps of a trained backbone vary, relative to their mean size.

    python benchmarks/stage_variation.py NAME=CONFIG@WEIGHTS ... --images FOLDER [--json PATH]

A stage whose maps hardly vary over positions and images carries no information: the levels that are
made from it give the same scores everywhere. WEIGHTS may be empty for the weights that the backbone
starts with.

Measured for each stage: the standard deviation of a channel over the positions of all images, as
mean over the channels, divided by the mean of the absolute values.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import df2s2_d2  # isort: skip  (patches Detectron2 before its first import)

import cv2
import torch
from detectron2.modeling import build_model
from tabulate import tabulate

from face_d2.cli.common import print_result
from face_d2.config import load_config
from face_d2.engine.checkpoint import FaceCheckpointer

SIZE = (640, 480)


@torch.inference_mode()
def variation(config: str, weights: str, images: list[Path]) -> dict[str, float]:
    """Stage -> standard deviation divided by mean size."""
    model = build_model(load_config(config, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", weights]))
    FaceCheckpointer(model.eval()).load(weights)
    maps: dict[str, list[torch.Tensor]] = {}
    for file in images:
        image = cv2.resize(cv2.imread(str(file)), SIZE)
        if model.input_format == "RGB":
            image = image[..., ::-1]
        item = {"image": torch.as_tensor(image.transpose(2, 0, 1).copy())}
        stages = model.backbone.bottom_up(model.preprocess_image([item]).tensor)
        for name, stage in stages.items():
            maps.setdefault(name, []).append(stage)
    found = {name: torch.cat(parts) for name, parts in maps.items()}
    return {
        name: (stage.std(dim=(0, 2, 3)).mean() / stage.abs().mean()).item()
        for name, stage in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=CONFIG@WEIGHTS")
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--most",
        type=int,
        default=20,
        help="number of images, spread over the folder (%(default)s)",
    )
    parser.add_argument("--json", type=Path, help="also write the result here")
    args = parser.parse_args()
    every = sorted(args.images.rglob("*.jpg"))
    images = every[:: max(len(every) // args.most, 1)][: args.most]
    result = {}
    for run in args.runs:
        name, _, source = run.partition("=")
        config, _, weights = source.partition("@")
        result[name] = variation(config, weights, images)
    rows = [[name, *stages.values()] for name, stages in result.items()]
    print(tabulate(rows, ["", *next(iter(result.values()))], "github", floatfmt=".2f"))
    print_result(result, args.json)


if __name__ == "__main__":
    main()
