"""The FDDB protocol written out in plain loops, as the benchmark's tool goes about it.

Every shape is drawn on the whole canvas, every score of an image is visited, every assignment of
detections to faces is tried. Only for small scenes.
"""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np


def fddb_counts_reference(
    images: list[tuple[list[tuple[float, ...]], list[tuple[float, ...]]]], canvas: tuple[int, int]
) -> dict[float, tuple[int, int, int, float]]:
    """Counts at every score.

    Args:
        images: for each image its ellipses (major, minor, angle, x, y) and detections, score last.
        canvas: (height, width).

    Returns:
        score -> detections, fewest and most discrete matches among the assignments with the largest
        sum of overlaps (several can share that sum), and that sum.
    """
    per_image = [_image_counts(ellipses, rows, canvas) for ellipses, rows in images]
    scores = {score for counts in per_image for score in counts}
    merged = {}
    for threshold in scores:
        total = [0, 0, 0, 0.0]
        for counts in per_image:
            reached = [score for score in counts if score >= threshold]
            if reached:
                total = [a + b for a, b in zip(total, counts[min(reached)])]
        merged[threshold] = tuple(total)
    return merged


def _image_counts(ellipses, rows, canvas):
    faces = [_draw(ellipse, canvas) for ellipse in ellipses]
    overlap = {row: [_iou(_draw(row[:-1], canvas), face) for face in faces] for row in rows}
    counts = {}
    for threshold in {row[-1] for row in rows}:
        shown = [overlap[row] for row in rows if row[-1] >= threshold]
        counts[threshold] = (len(shown), *_best_assignments(shown, len(faces)))
    return counts


def _best_assignments(overlap, num_faces):
    """Fewest and most pairs with IoU > 0.5 among the best assignments, and their sum."""
    # A detection may stay without a face: as many blank faces as there are detections.
    columns = [*range(num_faces), *[None] * len(overlap)]
    options = []
    for chosen in set(itertools.permutations(columns, len(overlap))):
        pairs = [row[face] for row, face in zip(overlap, chosen) if face is not None]
        options.append((sum(pairs), sum(iou > 0.5 for iou in pairs)))
    largest = max(total for total, _ in options)
    discrete = [count for total, count in options if total > largest - 1e-9]
    return min(discrete), max(discrete), largest


def _draw(shape, canvas):
    mask = np.zeros(canvas, dtype=np.uint8)
    if len(shape) == 4:
        x, y, w, h = shape
        corners = [(round(x), round(y)), (round(x + w), round(y + h))]
        return cv2.rectangle(mask, *corners, 1, cv2.FILLED)
    major, minor, angle, x, y = shape
    axes = (int(major), int(minor))
    return cv2.ellipse(mask, (round(x), round(y)), axes, angle * 180 / math.pi, 0, 360, 1, -1)


def _iou(a, b):
    both, either = 0, 0
    for row_a, row_b in zip(a.tolist(), b.tolist()):
        for in_a, in_b in zip(row_a, row_b):
            both += in_a and in_b
            either += in_a or in_b
    return both / either if either else 0.0
