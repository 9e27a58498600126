"""``face-d2-receptive-fields``: an LFFD's branches as a table, its receptive fields as a plot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from detectron2.modeling import build_model
from torch import Tensor

from face_d2.cli.common import CONFIG_HELP, CommandParser, run
from face_d2.config import load_config
from face_d2.engine.checkpoint import FaceCheckpointer
from lffd_d2.meta_arch import LFFD
from lffd_d2.plot import draw_receptive_fields, measure_effective_fields
from lffd_d2.receptive_field import branch_table

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the branch table and draws the picture; returns the exit status."""
    parser = CommandParser(
        "face-d2-receptive-fields",
        "Prints an LFFD's branches and draws its receptive fields, theoretical and effective "
        "(measured by gradient).",
        examples=(
            "face-d2-receptive-fields --config-file lffd/lffd_25L8S.yaml",
            "face-d2-receptive-fields --config-file lffd/lffd_25L8S.yaml --images photo.jpg "
            "MODEL.WEIGHTS model_final.pth",
        ),
        overrides=True,
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help=CONFIG_HELP)
    parser.add_argument(
        "--output",
        default="receptive_fields.png",
        metavar="FILE",
        help="PNG or SVG to write (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        nargs="*",
        default=[],
        metavar="FILE",
        help="photographs to measure on; default: noise",
    )
    args = parser.parse_args(argv)

    def draw() -> None:
        model = _build(args)
        variant = model.backbone.variant
        print(branch_table(variant))
        side = max(b.rf.size + 2 * b.rf.stride for b in variant.branches)
        fields = measure_effective_fields(model, _read_images(model, args.images, side))
        draw_receptive_fields(variant, fields, args.output)
        print(f"wrote {args.output}")

    return run(draw)


def _build(args: argparse.Namespace) -> LFFD:
    cfg = load_config(args.config_file, ["MODEL.DEVICE", "cpu", *args.opts])
    if cfg.MODEL.META_ARCHITECTURE != "LFFD":
        raise ValueError(
            f"{args.config_file} is of {cfg.MODEL.META_ARCHITECTURE}; expected an LFFD config, for "
            "example lffd/lffd_25L8S.yaml"
        )
    model = build_model(cfg).eval()
    FaceCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def _read_images(model: LFFD, paths: Sequence[str], side: int) -> list[Tensor]:
    """Photographs enlarged to at least ``side``, or noise if none are given."""
    if not paths:
        generator = torch.Generator().manual_seed(0)
        return [torch.rand(3, side, side, generator=generator) * 2 - 1 for _ in range(4)]
    images = []
    for path in paths:
        pixels = cv2.imread(path)
        if pixels is None:
            raise ValueError(f"{path} is not an image OpenCV can decode")
        factor = max(side / min(pixels.shape[:2]), 1.0)
        pixels = cv2.resize(pixels, None, fx=factor, fy=factor)[:side, :side]
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        images.append(model.preprocess_image([{"image": tensor}]).tensor[0])
    return images


if __name__ == "__main__":
    sys.exit(main())
