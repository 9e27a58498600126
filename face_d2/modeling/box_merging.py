"""Several answers about one image made one: suppression and box voting. NumPy only.

Boxes are XYXY pixels throughout, their sides the difference of the ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_d2.modeling.greedy import greedy

__all__ = ["best_first", "nms", "pairwise_iou", "vote"]

#: Voters compared with all candidates at a time; memory is this many rows of the IoU matrix.
_BLOCK = 256


def pairwise_iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """IoU of every box of ``a`` (A, 4) with every box of ``b`` (B, 4), shape (A, B).

    Boxes without area overlap nothing.
    """
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides -= np.maximum(a[:, None, :2], b[None, :, :2])
    np.maximum(sides, 0, out=sides)
    shared = sides[..., 0] * sides[..., 1]
    union = _areas(a)[:, None] + _areas(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def best_first(boxes: NDArray[np.floating], scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Indices that sort by falling score; equal scores by box, so that input order never matters.

    Args:
        boxes: (N, 4).
        scores: (N,).
    """
    return np.lexsort((*boxes.T[::-1], -scores))


def nms(
    boxes: NDArray[np.floating],
    order: NDArray[np.integer],
    iou_threshold: float,
    groups: ArrayLike | None = None,
) -> NDArray[np.intp]:
    """Greedy suppression.

    Args:
        boxes: (N, 4).
        order: indices of the boxes that take part, the most trusted first, see :func:`best_first`.
        iou_threshold: a box goes when a kept box before it overlaps it by more than this.
        groups: (N,) whose answer a box is; boxes of one group never suppress each other, because
            the detector that found them has already settled that. None: each box is a group.

    Returns:
        Indices of the boxes kept, in ``order``. Time grows with N times the number kept, memory
        with N.

    Raises:
        ValueError: the threshold is not in [0, 1].
    """
    _check_threshold(iou_threshold)
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
    candidate of another group that it overlaps most; a candidate becomes the mean of itself and its
    voters, weighted by score. A candidate without voters stays as it is.

    Args:
        boxes: (N, 4).
        scores: (N,), positive.
        iou_threshold: as for :func:`nms`.
        groups: as for :func:`nms`.

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


def _areas(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _check_threshold(value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"the IoU threshold for merging is {value}; expected 0 to 1")
