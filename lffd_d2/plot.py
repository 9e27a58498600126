"""A picture of LFFD's receptive fields: computed, against face sizes, and as the network uses them.

The theoretical receptive field is what can influence a unit; the effective one is what does, and
is much smaller and denser in the middle (Luo et al., "Understanding the Effective Receptive Field
in Deep Convolutional Neural Networks", https://arxiv.org/abs/1701.04128). LFFD's ranges are chosen
so that a face fills the effective field and the theoretical one holds its surroundings (design
note LFFD, figure "erf").
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from face_d2.config import get_cfg, load_config
from face_d2.engine.checkpoint import FaceCheckpointer
from lffd_d2.meta_arch import LFFD
from lffd_d2.receptive_field import Branch, Variant, branch_table

__all__ = ["draw_receptive_fields", "main", "measure_effective_fields"]

_SHARE = 0.95  # of the influence lies in the square that is called the effective field


def measure_effective_fields(model: LFFD, images: Sequence[Tensor]) -> dict[str, NDArray]:
    """How strongly each pixel of its receptive field moves a unit's score.

    Args:
        model: an LFFD in evaluation mode.
        images: (3, H, W) each, normalised, at least as large as the deepest receptive field; the
            unit nearest to the middle is measured.

    Returns:
        Tap to a (size, size) map over its receptive field: |d(face - background) / d pixel|, summed
        over colours, averaged over images, of sum 1.

    Raises:
        ValueError: an image is smaller than a receptive field.
    """
    branches = model.backbone.variant.branches
    largest = max(b.rf.size + 2 * b.rf.stride for b in branches)
    fields = {b.tap: np.zeros((b.rf.size, b.rf.size)) for b in branches}
    for image in images:
        if min(image.shape[1:]) < largest:
            raise ValueError(
                f"an image has {image.shape[1]} x {image.shape[2]} pixels; receptive fields are "
                f"measured on at least {largest} either way"
            )
        x = image[None].clone().requires_grad_()
        outputs = model.head(model.backbone(x))
        for branch in branches:
            logits = outputs[branch.tap][0]
            row, column = logits.shape[2] // 2, logits.shape[3] // 2
            score = logits[0, 0, row, column] - logits[0, 1, row, column]
            (gradient,) = torch.autograd.grad(score, x, retain_graph=True)
            top, left = (
                branch.rf.start + i * branch.rf.stride - branch.rf.size // 2 for i in (row, column)
            )
            size = branch.rf.size
            seen = gradient[0, :, top : top + size, left : left + size].abs().sum(dim=0)
            fields[branch.tap] += (seen / seen.sum()).numpy() / len(images)
    return fields


def effective_size(field: NDArray) -> int:
    """Side of the centred square that holds 95 % of the influence."""
    size = len(field)
    for half in range(size // 2 + 1):
        middle = slice(size // 2 - half, size // 2 + half + 1)
        if field[middle, middle].sum() >= _SHARE * field.sum():
            return 2 * half + 1
    return size


def draw_receptive_fields(variant: Variant, fields: dict[str, NDArray], path: str | Path) -> None:
    """Draws one panel per branch, all at their own scale, and one that compares them.

    Args:
        variant: whose fields they are.
        fields: as :func:`measure_effective_fields` gives them.
        path: PNG or SVG to write.
    """
    branches = variant.branches
    columns = math.ceil(math.sqrt(len(branches) + 1))
    rows = math.ceil((len(branches) + 1) / columns)
    figure = Figure(figsize=(3.6 * columns, 3.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for number, branch in enumerate(branches, start=1):
        axes = figure.add_subplot(rows, columns, number)
        _draw_branch(axes, branch, fields[branch.tap])
    _draw_comparison(figure.add_subplot(rows, columns, len(branches) + 1), branches, fields)
    figure.suptitle(f"LFFD {variant.name}: receptive fields and the faces they answer for (pixels)")
    figure.savefig(path, dpi=110)


def _draw_branch(axes, branch: Branch, field: NDArray) -> None:
    half = branch.rf.size / 2
    # The influence falls off like a bell; its root shows the flanks as well.
    axes.imshow(np.sqrt(field), cmap="magma", extent=(-half, half, half, -half))
    axes.set_xlim(-1.05 * half, 1.05 * half)  # shows the border of the theoretical field
    axes.set_ylim(1.05 * half, -1.05 * half)
    axes.set_facecolor("black")
    low, high = branch.face_range
    squares = (
        (branch.rf.size, "white", "-", f"theoretical {branch.rf.size}"),
        (effective_size(field), "cyan", "--", f"effective {effective_size(field)}"),
        (high, "lime", "-", f"faces {low:g}-{high:g}"),
        (low, "lime", "-", None),
    )
    for side, color, style, label in squares:
        axes.add_patch(
            Rectangle(
                (-side / 2, -side / 2),
                side,
                side,
                fill=False,
                edgecolor=color,
                linestyle=style,
                linewidth=1.6,
                label=label,
            )
        )
    axes.set_title(f"{branch.tap}, stride {branch.rf.stride}")
    axes.legend(loc="upper right", fontsize=7, facecolor="black", labelcolor="white")


def _draw_comparison(axes, branches: Sequence[Branch], fields: dict[str, NDArray]) -> None:
    rows = np.arange(len(branches))
    axes.barh(rows, [b.rf.size for b in branches], color="lightgray", label="theoretical")
    effective = [effective_size(fields[b.tap]) for b in branches]
    axes.barh(rows, effective, height=0.5, color="tab:cyan", label="effective (95 %)")
    lows, highs = np.array([b.face_range for b in branches]).T
    axes.barh(rows, highs - lows, left=lows, height=0.25, color="tab:green", label="faces")
    axes.set_xscale("log", base=2)
    axes.set_xlim(left=lows.min() / 1.5)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(rows, [b.tap for b in branches])
    axes.invert_yaxis()
    axes.set_title("all branches")
    axes.legend(fontsize=7)


def _read_images(model: LFFD, paths: Sequence[str], side: int) -> list[Tensor]:
    """Photographs enlarged to at least ``side``, or noise where none are given."""
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


def main(argv: Sequence[str] | None = None) -> None:
    """``tools/receptive_fields.py``: prints the branch table and draws the picture."""
    parser = argparse.ArgumentParser(
        description="Print an LFFD's branches and draw its receptive fields, theoretical and "
        "effective (measured by gradient)."
    )
    parser.add_argument("--config-file", required=True, help="any LFFD config, or a shipped name")
    parser.add_argument("--output", default="receptive_fields.png", help="PNG or SVG to write")
    parser.add_argument(
        "--images", nargs="*", default=[], help="photographs to measure on; default: noise"
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
    """The model of a command line; moves KEY VALUE pairs behind the images to their place."""
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
    """Whether a word among the images is a config's key; a misspelt one is, below a true node."""
    return word.partition(".")[0] in cfg and not Path(word).exists()
