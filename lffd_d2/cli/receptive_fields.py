"""``tools/receptive_fields.py``: a table of LFFD's branches and a plot of its receptive fields."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from face_d2.config import get_cfg, load_config
from face_d2.engine.checkpoint import FaceCheckpointer
from lffd_d2.meta_arch import LFFD
from lffd_d2.plot import draw_receptive_fields, measure_effective_fields
from lffd_d2.receptive_field import branch_table

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the branch table and draws the picture."""
    parser = argparse.ArgumentParser(
        description="Print the branches of an LFFD and draw its receptive fields, theoretical and "
        "effective (measured by gradient)."
    )
    parser.add_argument(
        "--config-file", required=True, help="an LFFD config file, or the name of a shipped one"
    )
    parser.add_argument("--output", default="receptive_fields.png", help="PNG or SVG to write")
    parser.add_argument(
        "--images", nargs="*", default=[], help="photographs on which to measure; default: noise"
    )
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs, e.g. MODEL.WEIGHTS x.pth")
    args = parser.parse_args(argv)
    try:
        model = _build(args)
        variant = model.backbone.variant
        print(branch_table(variant))
        side = max(b.rf.size + 2 * b.rf.stride for b in variant.branches)
        fields = measure_effective_fields(model, _read_images(model, args.images, side))
        draw_receptive_fields(variant, fields, args.output)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"wrote {args.output}")


def _build(args: argparse.Namespace) -> LFFD:
    """Builds the model; KEY VALUE pairs after the images are moved to ``opts``."""
    nodes = get_cfg()
    keys = (n for n, word in enumerate(args.images) if _is_key(nodes, word))
    first = next(keys, len(args.images))
    args.images, overrides = args.images[:first], [*args.opts, *args.images[first:]]
    cfg = load_config(args.config_file, ["MODEL.DEVICE", "cpu", *overrides])
    if cfg.MODEL.META_ARCHITECTURE != "LFFD":
        raise ValueError(
            f"{args.config_file} is of {cfg.MODEL.META_ARCHITECTURE}; expected an LFFD config, for "
            "example lffd/lffd_25L8S.yaml"
        )
    model = build_model(cfg).eval()
    FaceCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def _is_key(cfg: CfgNode, word: str) -> bool:
    """Whether a word among the images is a config key, or a misspelled key in an existing node."""
    return word.partition(".")[0] in cfg and not Path(word).exists()


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
