"""Warns about detections in a wrong format, which would score 0 without an error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth
from face_d2.evaluation.wider_face.matching import IOU_THRESHOLD, match

__all__ = ["fractions_warning", "other_form_warning"]

#: Number of detections with the highest scores that are read in the other formats.
_TRIED = 2000
#: Another format is likely if this many times as many detections overlap a face in it.
_FACTOR = 2
_MINIMUM = 10  # overlaps of fewer detections are mostly chance
_ONE_PIXEL = 1.5


def fractions_warning(boxes: NDArray[np.float64]) -> str:
    """Returns a warning if boxes (N, 4) XYWH look like fractions of the image's sides, or ""."""
    if len(boxes) < _MINIMUM or np.abs(boxes[:, 2:]).max() > _ONE_PIXEL:
        return ""
    return (
        f"none of the {len(boxes)} detections is longer than a pixel; are they fractions of the "
        "image's sides (normalized)? Expected x y w h in pixels of the image"
    )


def other_form_warning(
    detections: Sequence[NDArray[np.float64]], ground_truth: WiderFaceGroundTruth
) -> str:
    """Returns a warning if detections fit the faces as x1 y1 x2 y2 or as centers, or "".

    ``detections`` has (N, 5) x, y, w, h, score for each image of the ground truth. Those with the
    highest scores are compared in all three formats.
    """
    scores = np.concatenate([rows[:, 4] for rows in detections])
    if len(scores) < _MINIMUM:
        return ""
    tried = min(_TRIED, len(scores))
    lowest = np.partition(scores, -tried)[-tried]
    best = [rows[rows[:, 4] >= lowest] for rows in detections]
    as_read = _overlapping(best, ground_truth)
    forms = {
        "x1 y1 x2 y2": [_from_corners(rows) for rows in best],
        "center_x center_y w h": [_from_centers(rows) for rows in best],
    }
    for form, boxes in forms.items():
        found = _overlapping(boxes, ground_truth)
        if found >= max(_MINIMUM, _FACTOR * as_read + 1):
            total = sum(map(len, best))
            return (
                f"of the {total} detections with the highest scores, {as_read} overlap a face as "
                f"x y w h, and {found} would as {form}; is this their format? Expected x y w h, "
                "with x y the upper left corner"
            )
    return ""


def _overlapping(detections: list[NDArray[np.float64]], ground_truth: WiderFaceGroundTruth) -> int:
    return int((match(detections, ground_truth).iou >= IOU_THRESHOLD).sum())


def _from_corners(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    sizes = (rows[:, 2:4] - rows[:, :2]).clip(min=0)
    return np.column_stack([rows[:, :2], sizes, rows[:, 4]])


def _from_centers(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:]])
