"""From the candidates of a network to detections, in NumPy; what the PyTorch models do inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from face_d2.modeling.greedy import greedy
from face_d2.predictor.model_card import Suppression

__all__ = ["select", "suppress"]


def select(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    levels: NDArray[np.int64],
    settings: Suppression,
) -> NDArray[np.intp]:
    """Which candidates of one image are its detections.

    Args:
        boxes: (R, 4) XYXY.
        scores: (R,).
        levels: (R,).
        settings: thresholds and limits.

    Returns:
        Indices of the detections, best score first.
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
    return index[chosen]


def suppress(
    boxes: NDArray[np.float32], nms_type: str, threshold: float, limit: int
) -> NDArray[np.intp]:
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
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    areas = (x2 - x1) * (y2 - y1)

    def drops(better: NDArray[np.intp], worse: NDArray[np.intp]) -> NDArray[np.bool_]:
        sides = []  # (B, W) of the intersections
        for low, high in ((x1, x2), (y1, y2)):
            side = np.minimum(high[better, None], high[worse])
            side -= np.maximum(low[better, None], low[worse])
            side += extra
            sides.append(np.maximum(side, 0, out=side))
        shared = np.multiply(*sides, out=sides[0])
        whole = areas[worse]
        if nms_type == "iou":
            whole = whole + areas[better, None] - shared
        return ~(shared <= threshold * whole)  # NaN drops, and is dropped

    return greedy(np.arange(len(boxes)), drops, limit)
