"""Greedy suppression of tensors, by two measures, which can stop when enough is kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import nms as nms_iou

from face_d2.ops.nms import suppress as suppress_arrays

__all__ = ["NMS_TYPES", "first_kept", "suppress"]

_FIRST = 4  # boxes looked at first, per box that may be kept; twice as many every further time


def first_kept(
    suppress: Callable[[Tensor, Tensor], Tensor], boxes: Tensor, scores: Tensor, limit: int
) -> Tensor:
    """What a greedy suppression keeps, cut off after ``limit``, in bounded time and memory.

    Which of the best m boxes stay does not depend on the others, so the best are looked at alone,
    twice as many each time, until enough of them stay. Before that fewer than ``limit`` stay, so
    that N boxes cost about 2 N ``limit`` comparisons at most. All at once, N boxes that hardly
    overlap cost N^2 / 2 of them on a CPU and N^2 / 8 bytes on a GPU.

    Args:
        suppress: (boxes (m, 4), scores (m,)) to the indices kept, best score first.
        boxes: (N, 4).
        scores: (N,).
        limit: most boxes kept, at least 1.

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
    """Suppression by intersection over the area of the lower-scored box, on the CPU.

    Arguments and result as of :func:`suppress`.
    """
    order = scores.argsort(descending=True, stable=True)
    sorted_boxes = boxes[order].detach().cpu().numpy()
    kept = suppress_arrays(sorted_boxes, "iom", threshold, len(sorted_boxes))
    return order[torch.from_numpy(kept).to(order.device)]


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
        raise ValueError(f"the NMS type is one of {list(NMS_TYPES)}, not {nms_type!r}")
    return NMS_TYPES[nms_type](boxes, scores, threshold)
