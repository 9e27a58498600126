"""Non-maximum suppression over the boxes of all branches together."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms as nms_iou

__all__ = ["NMS_TYPES", "suppress"]


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
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        top_left = torch.maximum(boxes[best, :2], boxes[order, :2])
        bottom_right = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        intersection = (bottom_right - top_left + 1).clamp(min=0).prod(dim=1)
        order = order[intersection <= threshold * areas[order]]
    return torch.stack(kept) if kept else order


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
