"""From the candidates of a network to detections, in NumPy; what the PyTorch models do inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from face_d2.predictor.model_card import Suppression
from face_d2.predictor.results import Found

__all__ = ["select", "suppress"]


def select(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    levels: NDArray[np.int64],
    settings: Suppression,
) -> Found:
    """Detections of one image, best score first.

    Args:
        boxes: (R, 4) XYXY.
        scores: (R,).
        levels: (R,).
        settings: thresholds and limits.
    """
    index = np.flatnonzero(scores > settings.score_threshold)
    index = index[np.isfinite(boxes[index]).all(axis=1)]
    index = index[np.argsort(-scores[index], kind="stable")]
    if settings.topk_per_level:
        kept = np.zeros(len(index), dtype=bool)
        for level in np.unique(levels[index]):
            kept[np.flatnonzero(levels[index] == level)[: settings.topk]] = True
        index = index[kept]
    else:
        index = index[: settings.topk]
    chosen = suppress(
        boxes[index], settings.nms_type, settings.nms_threshold, settings.max_detections
    )
    index = index[chosen]
    return Found(boxes[index], scores[index], levels[index])


def suppress(
    boxes: NDArray[np.float32], nms_type: str, threshold: float, limit: int
) -> NDArray[np.int64]:
    """Greedy suppression.

    Args:
        boxes: (N, 4) XYXY, best score first.
        nms_type: "iou"; or "iom", intersection over the area of the lower-scored box, where the
            sides of the intersection (not of the box) count one pixel more, as in LFFD's released
            tool.
        threshold: overlaps greater than this are suppressed.
        limit: most boxes kept.

    Returns:
        Indices of the boxes kept, in order.

    Raises:
        ValueError: ``nms_type`` is unknown.
    """
    if nms_type not in ("iou", "iom"):
        raise ValueError(f'the NMS type is "iou" or "iom", not {nms_type!r}')
    extra = np.float32(nms_type == "iom")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        best, left = left[0], left[1:]
        kept.append(int(best))
        rest = boxes[left]
        sides = np.minimum(boxes[best, 2:], rest[:, 2:]) - np.maximum(boxes[best, :2], rest[:, :2])
        intersection = (sides + extra).clip(min=0).prod(axis=1)
        whole = areas[left]
        if nms_type == "iou":
            whole = whole + areas[best] - intersection
        left = left[intersection <= threshold * whole]
    return np.array(kept, dtype=np.int64)
