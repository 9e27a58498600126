#!/usr/bin/env python
"""Turns a finished training into the files of a detector that ships with the package.

Writes ``NAME.safetensors`` (the averaged weights in half precision) and ``NAME.onnx`` (exported
from those very weights, checked against PyTorch) to face_d2/weights.
"""

from __future__ import annotations

import face_d2.register  # isort: skip  (before Detectron2)
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from safetensors.torch import save

from face_d2.cli.common import CommandParser, run
from face_d2.config import load_config
from face_d2.export.half import store_in_half
from face_d2.export.onnx_file import export_onnx
from face_d2.predictor.torch_backend import build_detector, configured_size_rule
from face_d2.pretrained import PRETRAINED, find_pretrained
from face_d2.utils.files import replaced_file

_WEIGHTS = Path(__file__).parents[1] / "face_d2" / "weights"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "tools/ship_weights.py",
        "Turns a finished training into the files of a detector that ships with the package: "
        "NAME.safetensors and NAME.onnx.",
        examples=("python tools/ship_weights.py lffd-20l5s output/lffd/model_final.pth",),
    )
    parser.add_argument("name", choices=tuple(PRETRAINED), help="the shipped detector")
    parser.add_argument("checkpoint", type=Path, help="of a training with the detector's config")
    parser.add_argument(
        "--output",
        type=Path,
        default=_WEIGHTS,
        metavar="DIR",
        help="where to write the files (face_d2/weights)",
    )
    options = parser.parse_args(argv)
    return run(lambda: ship(options.name, options.checkpoint, options.output))


def ship(name: str, checkpoint: Path, output: Path) -> None:
    """Writes both files of a detector to the folder ``output`` and prints their sizes.

    Raises:
        FileNotFoundError: there is no checkpoint or no such folder.
    """
    for path in (checkpoint, output):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    shipped = find_pretrained(name)
    cfg = load_config(shipped.config, ["MODEL.DEVICE", "cpu"])
    model = build_detector(cfg, checkpoint)
    weights = output / f"{name}.safetensors"
    with replaced_file(weights) as temporary:
        tensors = {
            key: value.half().contiguous() if value.is_floating_point() else value
            for key, value in model.state_dict().items()
        }
        temporary.write_bytes(save(tensors, {"config": shipped.config}))
    model = build_detector(cfg, weights)  # what is exported is what was rounded
    file = output / f"{name}.onnx"
    comparisons = export_onnx(
        model,
        file,
        size_rule=configured_size_rule(cfg),
        config=shipped.config,
        weights=weights,
    )
    content = onnx.load(file)
    changed = store_in_half(content)
    onnx.checker.check_model(content, full_check=True)
    with replaced_file(file) as temporary:
        onnx.save(content, temporary)
    for comparison in comparisons:
        print("PyTorch against ONNX Runtime at", comparison.shape, comparison.differences)
    for path in (weights, file):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    print(f"{changed} tensors in half precision, torch {torch.__version__}")


if __name__ == "__main__":
    sys.exit(main())
