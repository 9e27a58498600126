"""LFFD's labels with plain loops over faces and cells, slow and literal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lffd_d2.receptive_field import Branch


def face_size(box: Sequence[float], measure: str) -> float:
    width, height = box[2] - box[0], box[3] - box[1]
    if measure == "longer":
        return max(width, height)
    if measure == "shorter":
        return min(width, height)
    return math.sqrt(width * height)


def label_image(
    branch: Branch,
    map_size: tuple[int, int],
    boxes: Sequence[Sequence[float]],
    ignore: Sequence[bool],
    *,
    divisor: float,
    scale_measure: str,
    min_face: float,
) -> tuple[NDArray, NDArray, NDArray]:
    """Labels one image on one branch.

    Returns:
        score (h, w): 1 face, 0 background, -1 ignored; box_mask (h, w) bool; targets (h, w, 4).
    """
    height, width = map_size
    score = np.zeros((height, width), dtype=np.int64)
    box_mask = np.zeros((height, width), dtype=bool)
    targets = np.zeros((height, width, 4))
    low, high = branch.face_range
    gray_low, gray_high = branch.gray_range
    for row in range(height):
        for column in range(width):
            x = branch.rf.start + column * branch.rf.stride
            y = branch.rf.start + row * branch.rf.stride
            greens, grays = [], 0
            for box, ignored in zip(boxes, ignore):
                if not (box[0] <= x <= box[2] and box[1] <= y <= box[3]):
                    continue
                size = face_size(box, scale_measure)
                if ignored or size < min_face:
                    grays += 1
                elif low <= size <= high:
                    greens.append(box)
                elif gray_low <= size <= gray_high:
                    grays += 1
            if len(greens) == 1:
                box_mask[row, column] = True
                (box,) = greens
                corners = (x - box[0], y - box[1], x - box[2], y - box[3])
                targets[row, column] = [c / divisor for c in corners]
            if grays or len(greens) > 1:
                score[row, column] = -1
            elif greens:
                score[row, column] = 1
    return score, box_mask, targets
