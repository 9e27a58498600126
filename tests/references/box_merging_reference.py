"""Suppression and box voting in plain loops, for comparison."""

from __future__ import annotations

from collections.abc import Sequence

Box = Sequence[float]


def iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def nms_in_loops(
    boxes: Sequence[Box], order: Sequence[int], threshold: float, groups: Sequence[int]
) -> list[int]:
    kept: list[int] = []
    for i in order:
        rivals = [k for k in kept if groups[k] != groups[i]]
        if all(iou(boxes[k], boxes[i]) <= threshold for k in rivals):
            kept.append(i)
    return kept


def vote_in_loops(
    boxes: Sequence[Box], scores: Sequence[float], threshold: float, groups: Sequence[int]
) -> tuple[list[list[float]], list[int]]:
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], *boxes[i]))
    kept = nms_in_loops(boxes, order, threshold, groups)
    votes: dict[int, list[int]] = {k: [k] for k in kept}
    for i in order:
        if i not in votes:
            rivals = [k for k in kept if groups[k] != groups[i]]
            votes[max(rivals, key=lambda k: iou(boxes[k], boxes[i]))].append(i)
    merged = []
    for k in kept:
        weight = sum(scores[i] for i in votes[k])
        merged.append([sum(scores[i] * boxes[i][c] for i in votes[k]) / weight for c in range(4)])
    return merged, kept
