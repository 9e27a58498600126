"""NMS and box voting, with NumPy only.

All boxes are XYXY pixels. The side of a box is the difference of its ends.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_d2.ops.spec import Suppression

__all__ = ["best_first", "greedy", "nms", "pairwise_iou", "select", "suppress", "vote"]

#: Number of voters compared with all candidates at a time, which limits the memory for IoUs.
_BLOCK = 256

#: Number of boxes that :func:`greedy` compares with all later boxes at a time.
_COMPARED = 64


def pairwise_iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """IoU of every box of ``a`` (A, 4) with every box of ``b`` (B, 4), shape (A, B).

    Boxes without area have an IoU of 0 with all boxes.
    """
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides -= np.maximum(a[:, None, :2], b[None, :, :2])
    np.maximum(sides, 0, out=sides)
    shared = sides[..., 0] * sides[..., 1]
    union = _areas(a)[:, None] + _areas(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def best_first(boxes: NDArray[np.floating], scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Indices that sort boxes (N, 4) by descending score (N,), and equal scores by box."""
    return np.lexsort((*boxes.T[::-1], -scores))


def greedy(
    order: NDArray[np.integer],
    drops: Callable[[NDArray[np.integer], NDArray[np.integer]], NDArray[np.bool_]],
    limit: int | None = None,
) -> NDArray[np.intp]:
    """Greedy NMS: keeps the first box, removes the boxes that it suppresses, and repeats.

    Args:
        order: (N,) indices of the boxes to consider, best first.
        drops: maps indices (B,) and (W,) to (B, W) bool: which boxes of the first suppress which of
            the second. B is at most 64, so memory is linear in N.
        limit: maximum number of boxes to keep; None for all.

    Returns:
        Indices of the boxes kept, in ``order``.
    """
    left = np.asarray(order, dtype=np.intp)
    limit = len(left) if limit is None else limit
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        head, left = left[:_COMPARED], left[_COMPARED:]
        hits = drops(head, head)
        alive = np.ones(len(head), dtype=bool)
        for row in range(len(head)):
            if alive[row]:
                alive[row + 1 :] &= ~hits[row, row + 1 :]
        head = head[alive]
        kept.extend(head.tolist())
        left = left[~drops(head, left).any(axis=0)]
    return np.asarray(kept[:limit], dtype=np.intp)


def nms(
    boxes: NDArray[np.floating],
    order: NDArray[np.integer],
    iou_threshold: float,
    groups: ArrayLike | None = None,
) -> NDArray[np.intp]:
    """Greedy NMS by IoU.

    Args:
        boxes: (N, 4).
        order: indices of the boxes to consider, best first, see :func:`best_first`.
        iou_threshold: a box is suppressed if its IoU with a kept box is above this.
        groups: (N,) the search in which a box was detected. Boxes of the same group do not suppress
            each other, because the detector has already applied NMS to them. None: each box is a
            group.

    Returns:
        Indices of the boxes kept, in ``order``. Time grows with N times the number kept, memory
        with N.

    Raises:
        ValueError: the threshold is not in [0, 1].
    """
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"the IoU threshold for merging is {iou_threshold}; expected 0 to 1")
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    labels = np.arange(len(boxes)) if groups is None else np.asarray(groups)

    def drops(better: NDArray[np.intp], worse: NDArray[np.intp]) -> NDArray[np.bool_]:
        overlaps = pairwise_iou(boxes[better], boxes[worse]) > iou_threshold
        return overlaps & (labels[better, None] != labels[worse])

    return greedy(order, drops)


def vote(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    iou_threshold: float,
    groups: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Score-weighted box voting (Gidaris and Komodakis, arXiv 1505.01749, section 5).

    The boxes that :func:`nms` keeps are the candidates. Every suppressed box votes for the
    candidate of another group with which it has the highest IoU. A candidate is replaced by the
    mean of itself and its voters, weighted by score; without voters, it is unchanged.

    Args:
        boxes: (N, 4).
        scores: (N,), positive.
        iou_threshold, groups: see :func:`nms`.

    Returns:
        The candidates' new boxes (K, 4), best score first, and their indices (K,).

    Raises:
        ValueError: the threshold is not in [0, 1].
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    scores = np.asarray(scores, dtype=np.float64)
    labels = np.arange(len(boxes)) if groups is None else np.asarray(groups)
    kept = nms(boxes, best_first(boxes, scores), iou_threshold, labels)
    weights = scores[kept]
    sums = weights[:, None] * boxes[kept]
    voters = np.setdiff1d(np.arange(len(boxes)), kept)
    for start in range(0, len(voters), _BLOCK):
        block = voters[start : start + _BLOCK]
        foreign = labels[block, None] != labels[kept]
        candidate = (pairwise_iou(boxes[block], boxes[kept]) * foreign).argmax(axis=1)
        np.add.at(sums, candidate, scores[block, None] * boxes[block])
        np.add.at(weights, candidate, scores[block])
    return sums / weights[:, None], kept


def select(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    levels: NDArray[np.int64],
    settings: Suppression,
) -> NDArray[np.intp]:
    """Selects the detections of one image from its candidates.

    Args:
        boxes, scores, levels: (R, 4) XYXY, (R,) and (R,) of the candidates.
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
    """Greedy NMS by IoU or by the measure of LFFD's released tool.

    Args:
        boxes: (N, 4) XYXY, best score first.
        nms_type: "iou", or "iom": the intersection divided by the area of the lower-scored box. As
            in LFFD's released tool, one pixel is added to the sides of the intersection, but not to
            those of the box.
        threshold: boxes with a larger overlap are suppressed.
        limit: maximum number of boxes to keep.

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
        return ~(shared <= threshold * whole)  # NaN suppresses and is suppressed

    return greedy(np.arange(len(boxes)), drops, limit)


def _areas(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
