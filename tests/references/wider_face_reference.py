"""The WIDER FACE protocol written out in plain loops, as the benchmark's tool goes about it.

Slow on purpose: no array operation, nothing shared between settings, every threshold visited. It is
what ``face_d2.evaluation.widerface_ap`` must agree with.
"""

from __future__ import annotations

Box = tuple[float, float, float, float]


def widerface_ap_reference(
    predictions: dict[str, list[tuple[float, ...]]],
    faces: dict[str, list[Box]],
    kept: dict[str, set[int]],
) -> float:
    """AP of one setting.

    Args:
        predictions: image -> rows x, y, w, h, score, for every image.
        faces: image -> boxes x, y, w, h.
        kept: image -> indices of the faces that count.
    """
    scores = [row[4] for rows in predictions.values() for row in rows]
    low, high = (min(scores), max(scores)) if scores else (0.0, 0.0)
    proposals, recalled = [0] * 1000, [0] * 1000
    num_kept = 0
    for image, boxes in faces.items():
        num_kept += len(kept[image])
        if not boxes or not predictions[image]:
            continue
        rows = sorted(predictions[image], key=lambda row: -row[4])
        running = _evaluate_image(rows, boxes, kept[image])
        shown = 0
        for t in range(1, 1001):
            threshold = 1 - t / 1000
            while shown < len(rows) and _stretched(rows[shown][4], low, high) >= threshold:
                shown += 1
            if shown:
                proposals[t - 1] += running[shown - 1][0]
                recalled[t - 1] += running[shown - 1][1]
    if num_kept == 0:
        return float("nan")
    precision = [r / p if p else 0.0 for p, r in zip(proposals, recalled)]
    return _area([r / num_kept for r in recalled], precision)


def _evaluate_image(
    rows: list[tuple[float, ...]], boxes: list[Box], kept: set[int]
) -> list[tuple[int, int]]:
    """(proposals, recalled faces) after each rank."""
    found: set[int] = set()
    proposals, running = 0, []
    for row in rows:
        best, best_overlap = 0, -1.0
        for index, box in enumerate(boxes):
            overlap = _overlap(row, box)
            if overlap > best_overlap:
                best, best_overlap = index, overlap
        if best_overlap >= 0.5 and best not in kept:
            running.append((proposals, len(found)))
            continue
        if best_overlap >= 0.5:
            found.add(best)
        proposals += 1
        running.append((proposals, len(found)))
    return running


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    ax2, ay2, bx2, by2 = a[0] + a[2], a[1] + a[3], b[0] + b[2], b[1] + b[3]
    width = min(ax2, bx2) - max(a[0], b[0]) + 1
    height = min(ay2, by2) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    area_a = (ax2 - a[0] + 1) * (ay2 - a[1] + 1)
    area_b = (bx2 - b[0] + 1) * (by2 - b[1] + 1)
    return width * height / (area_a + area_b - width * height)


def _stretched(score: float, low: float, high: float) -> float:
    return (score - low) / (high - low) if high > low else 1.0


def _area(recall: list[float], precision: list[float]) -> float:
    recall = [0.0, *recall, 1.0]
    precision = [0.0, *precision, 0.0]
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    area = 0.0
    for i in range(1, len(recall)):
        area += (recall[i] - recall[i - 1]) * precision[i]
    return area
