"""Non-maximum suppression over the boxes of all branches together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms as nms_iou

__all__ = ["NMS_TYPES", "suppress"]

_BLOCK = 64  # boxes compared with all that follow at a time; memory is 3 such rows of floats


def _nms_iom(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy suppression by intersection over the area of the lower-scored box.

    As in the released tool, sides of the intersection are one pixel longer than the difference of
    their ends, areas are not.

    Args:
        boxes: (N, 4) XYXY.
        scores: (N,).
        threshold: boxes overlapped by more than this are dropped.

    Returns:
        Indices of the boxes kept, best score first.
    """
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while len(order):
        head, order = order[:_BLOCK], order[_BLOCK:]
        drops = _drops(boxes[head], boxes[head], threshold).cpu().numpy()
        stays = np.ones(len(head), dtype=bool)
        for row in range(len(head)):
            if stays[row]:
                stays[row + 1 :] &= ~drops[row, row + 1 :]
        head = head[torch.from_numpy(stays).to(head.device)]
        kept.append(head)
        order = order[~_drops(boxes[head], boxes[order], threshold).any(dim=0)]
    return torch.cat(kept) if kept else order


def _drops(better: Tensor, worse: Tensor, threshold: float) -> Tensor:
    """(A, B) bool: which of ``better`` (A, 4) cover too much of which of ``worse`` (B, 4)."""
    sides = [
        torch.minimum(better[:, None, axis + 2], worse[:, axis + 2])
        .sub_(torch.maximum(better[:, None, axis], worse[:, axis]))
        .add_(1)
        .clamp_(min=0)
        for axis in (0, 1)
    ]
    areas = (worse[:, 2] - worse[:, 0]) * (worse[:, 3] - worse[:, 1])
    return ~(sides[0].mul_(sides[1]) <= threshold * areas)  # NaN drops, and is dropped


NMS_TYPES = {"iou": nms_iou, "iom": _nms_iom}


def suppress(boxes: Tensor, scores: Tensor, nms_type: str, threshold: float) -> Tensor:
    """Greedy class-agnostic suppression.

    Args:
        boxes: (N, 4) XYXY pixels.
        scores: (N,).
        nms_type: "iou", or "iom" for the released tool's measure.
        threshold: overlaps greater than this are suppressed.

    Returns:
        Indices of the boxes kept, best score first.

    Raises:
        ValueError: ``nms_type`` is unknown.
    """
    if nms_type not in NMS_TYPES:
        raise ValueError(f"MODEL.LFFD.NMS_TYPE is one of {list(NMS_TYPES)}, not {nms_type!r}")
    return NMS_TYPES[nms_type](boxes, scores, threshold)
