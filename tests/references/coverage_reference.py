"""Coverage in plain loops, from the plain labels of the two detectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from references import df2s2_reference, lffd_assignment_reference

from lffd_d2.receptive_field import Branch


def anchor_coverage(
    anchors: NDArray,
    levels: NDArray,
    boxes: NDArray,
    ignore: NDArray,
    low: float,
    high: float,
    floor: float,
) -> tuple[list[int], list[list[int]]]:
    """Outcomes (0 by IoU, 1 low quality, 2 none) and positives per level of every face."""
    labels, owners = df2s2_reference.match(anchors, levels, boxes, ignore, low, high, floor)
    outcomes, positives = [], []
    for m in range(len(boxes)):
        counts = [0] * (int(max(levels)) + 1)
        best = 0.0
        for r in range(len(anchors)):
            if labels[r] == 1 and owners[r] == m:
                counts[levels[r]] += 1
                best = max(best, float(df2s2_reference.iou(boxes[m], anchors[r])))
        outcomes.append(2 if not sum(counts) else 0 if best >= np.float32(high) else 1)
        positives.append(counts)
    return outcomes, positives


def field_coverage(
    branches: Sequence[Branch],
    map_sizes: Sequence[tuple[int, int]],
    boxes: Sequence[Sequence[float]],
    ignore: Sequence[bool],
    *,
    scale_measure: str,
    min_face: float,
) -> tuple[list[int], list[list[int]]]:
    """Outcomes (0 covered, 1 in no range, 2 no center) and positives per branch of every face."""
    outcomes, positives = [], []
    sizes = [lffd_assignment_reference.face_size(box, scale_measure) for box in boxes]
    for m, (box, size) in enumerate(zip(boxes, sizes)):
        counts, in_range = [], False
        for branch, map_size in zip(branches, map_sizes):
            score, _, _ = lffd_assignment_reference.label_image(
                branch,
                map_size,
                boxes,
                ignore,
                divisor=1.0,
                scale_measure=scale_measure,
                min_face=min_face,
            )
            low, high = branch.face_range
            green = not ignore[m] and size >= min_face and low <= size <= high
            in_range = in_range or green
            count = 0
            for row, column in zip(*np.nonzero(score == 1)):
                x = branch.rf.start + column * branch.rf.stride
                y = branch.rf.start + row * branch.rf.stride
                if green and box[0] <= x <= box[2] and box[1] <= y <= box[3]:
                    count += 1
            counts.append(count)
        outcomes.append(0 if sum(counts) else 2 if in_range else 1)
        positives.append(counts)
    return outcomes, positives
