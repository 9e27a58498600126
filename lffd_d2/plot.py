"""A picture of LFFD's theoretical and effective receptive fields and the face sizes of its
branches.

The theoretical receptive field of a unit is the region that can influence it. The effective
receptive field is the region that has most of the influence; it is much smaller and denser in the
middle (Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural
Networks", https://arxiv.org/abs/1701.04128). LFFD's ranges are chosen so that a face fills the
effective field and the theoretical field contains its surroundings (arXiv 1904.10633, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.modeling import build_model
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from face_d2.config import load_config
from face_d2.engine.checkpoint import FaceCheckpointer
from lffd_d2.meta_arch import LFFD
from lffd_d2.receptive_field import Branch, Variant

__all__ = ["build_lffd", "draw_receptive_fields", "measure_effective_fields", "read_images"]

_SHARE = 0.95  # fraction of the influence inside the effective field


def build_lffd(config_file: str, overrides: Sequence[str] = ()) -> LFFD:
    """Builds the network of an LFFD config on the CPU, in evaluation mode.

    Args:
        config_file: a config file, or the name of a shipped one.
        overrides: KEY, VALUE, ...; ``MODEL.WEIGHTS`` chooses the weights.

    Raises:
        ValueError: the config is of another detector.
    """
    cfg = load_config(config_file, ["MODEL.DEVICE", "cpu", *overrides])
    if cfg.MODEL.META_ARCHITECTURE != "LFFD":
        raise ValueError(
            f"{config_file} is of {cfg.MODEL.META_ARCHITECTURE}; expected an LFFD config, for "
            "example lffd/lffd_25L8S.yaml"
        )
    model = build_model(cfg).eval()
    FaceCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def read_images(model: LFFD, paths: Sequence[str]) -> list[Tensor]:
    """Images for :func:`measure_effective_fields`: photographs, or noise if none are given.

    Small photographs are enlarged until the largest receptive field fits.

    Raises:
        ValueError: OpenCV cannot decode a file.
    """
    side = _smallest_side(model)
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


def _smallest_side(model: LFFD) -> int:
    """Side of the smallest image that contains every receptive field near its middle."""
    return max(b.rf.size + 2 * b.rf.stride for b in model.backbone.variant.branches)


def measure_effective_fields(model: LFFD, images: Sequence[Tensor]) -> dict[str, NDArray]:
    """Measures the influence of each pixel of the receptive field on the score of a unit.

    Args:
        model: an LFFD in evaluation mode.
        images: (3, H, W) each, normalized, at least as large as the largest receptive field. The
            unit nearest to the middle is measured.

    Returns:
        For each tap, a (size, size) map over its receptive field: |d(face - background) / d pixel|,
        summed over colors, averaged over images and normalized to a sum of 1.

    Raises:
        ValueError: an image is smaller than a receptive field, or no pixel has an influence.
    """
    branches = model.backbone.variant.branches
    largest = _smallest_side(model)
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
            logits, rf = outputs[branch.tap][0], branch.rf
            row, column = logits.shape[2] // 2, logits.shape[3] // 2
            score = logits[0, 0, row, column] - logits[0, 1, row, column]
            (gradient,) = torch.autograd.grad(score, x, retain_graph=True)
            top, left = (rf.start + i * rf.stride - rf.size // 2 for i in (row, column))
            seen = gradient[0, :, top : top + rf.size, left : left + rf.size].abs().sum(dim=0)
            total = seen.sum().clamp(min=torch.finfo(seen.dtype).tiny)
            fields[branch.tap] += (seen / total).numpy()
    for tap, field in fields.items():
        if not field.any():
            raise ValueError(
                f"no pixel of any image moves the score of {tap}; take trained weights, and images "
                "of more than one color"
            )
    return {tap: field / field.sum() for tap, field in fields.items()}


def effective_size(field: NDArray) -> int:
    """Side of the centered square that contains 95 % of the influence."""
    center = len(field) // 2
    for half in range(center):
        middle = slice(center - half, center + half + 1)
        if field[middle, middle].sum() >= _SHARE * field.sum():
            return 2 * half + 1
    return len(field)


def draw_receptive_fields(variant: Variant, fields: dict[str, NDArray], path: str | Path) -> None:
    """Draws one panel per branch, each at its own scale, and one panel that compares them.

    ``fields`` is the result of :func:`measure_effective_fields`; ``path`` is a PNG or SVG to write.
    """
    branches = variant.branches
    panels = len(branches) + 1
    columns = math.ceil(math.sqrt(panels))
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(3.6 * columns, 3.9 * rows), layout="constrained")
    for number, branch in enumerate(branches, start=1):
        axes = figure.add_subplot(rows, columns, number)
        _draw_branch(axes, branch, fields[branch.tap])
    _draw_comparison(figure.add_subplot(rows, columns, panels), branches, fields)
    figure.suptitle(f"LFFD {variant.name}: receptive fields and their face sizes (pixels)")
    figure.savefig(path, dpi=110)


def _draw_branch(axes, branch: Branch, field: NDArray) -> None:
    half = branch.rf.size / 2
    # The influence is bell-shaped; the square root makes its flanks visible.
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
        square = Rectangle((-side / 2, -side / 2), side, side, fill=False, label=label)
        square.set(edgecolor=color, linestyle=style, linewidth=1.6)
        axes.add_patch(square)
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
