"""Greedy NMS of tensors by two measures, which can stop when enough boxes are kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import nms as nms_iou

from face_d2.ops.nms import suppress as suppress_arrays
from face_d2.utils.choices import check_choice

__all__ = ["NMS_TYPES", "first_kept", "suppress"]

_FIRST = 4  # initial number of candidates per box to keep; doubled each round


def first_kept(
    suppress: Callable[[Tensor, Tensor], Tensor], boxes: Tensor, scores: Tensor, limit: int
) -> Tensor:
    """The first ``limit`` boxes that greedy NMS keeps, in bounded time and memory.

    Greedy NMS of the best m boxes does not depend on the other boxes. Therefore it is applied to
    the best boxes only, and to twice as many each round, until ``limit`` boxes are kept. This takes
    at most about 2 N ``limit`` comparisons for N boxes. NMS of all boxes at once would take N^2 / 2
    comparisons on a CPU, or N^2 / 8 bytes on a GPU, if the boxes hardly overlap.

    Args:
        suppress: maps boxes (m, 4) and scores (m,) to the indices of the kept boxes, best score
            first.
        boxes, scores: (N, 4) and (N,).
        limit: maximum number of boxes to keep, at least 1.

    Returns:
        (at most ``limit``,) indices, best score first: the first of ``suppress(boxes, scores)``.
    """
    order = scores.argsort(descending=True, stable=True)
    looked_at = _FIRST * limit
    while True:
        best = order[:looked_at]
        kept = best[suppress(boxes[best], scores[best])]
        if len(kept) >= limit or looked_at >= len(order):
            return kept[:limit]
        looked_at *= 2


def _nms_iom(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """NMS by the intersection over the area of the lower-scored box, on the CPU."""
    order = scores.argsort(descending=True, stable=True)
    sorted_boxes = boxes[order].detach().cpu().numpy()
    kept = suppress_arrays(sorted_boxes, "iom", threshold, len(sorted_boxes))
    return order[torch.from_numpy(kept).to(order.device)]


NMS_TYPES = {"iou": nms_iou, "iom": _nms_iom}


def suppress(boxes: Tensor, scores: Tensor, nms_type: str, threshold: float) -> Tensor:
    """Greedy class-agnostic NMS of boxes (N, 4) XYXY in pixels with scores (N,).

    Args:
        nms_type: "iou", or "iom" for the measure of LFFD's released tool.
        threshold: boxes with a larger overlap are suppressed.

    Returns:
        Indices of the boxes kept, best score first.

    Raises:
        ValueError: ``nms_type`` is unknown.
    """
    check_choice("nms_type", nms_type, NMS_TYPES)
    return NMS_TYPES[nms_type](boxes, scores, threshold)
