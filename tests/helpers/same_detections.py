"""Are two lists of detections the same, but for the last digits?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment


def assert_same_detections(
    expected: tuple[ArrayLike, ArrayLike],
    found: tuple[ArrayLike, ArrayLike],
    box_tolerance: float = 1e-3,
    score_tolerance: float = 1e-5,
) -> None:
    """Pairs the detections; their order may differ, as where scores are equal to the last digits.

    Sums over several threads, or over another batch, end in other digits.

    Args:
        expected, found: boxes (N, 4) XYXY and scores (N,).
        box_tolerance: pixels.
        score_tolerance: absolute.
    """
    (boxes, scores), (found_boxes, found_scores) = (
        [np.asarray(array, np.float64) for array in pair] for pair in (expected, found)
    )
    assert len(found_boxes) == len(boxes)
    box_error = np.abs(boxes[:, None] - found_boxes[None]).max(axis=2, initial=0)
    score_error = np.abs(scores[:, None] - found_scores[None])
    error = np.maximum(box_error / box_tolerance, score_error / score_tolerance)
    assert error[linear_sum_assignment(error)].max(initial=0) <= 1
