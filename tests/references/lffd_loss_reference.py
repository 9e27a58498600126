"""LFFD's objective and its gradient with plain loops, in the released code's terms."""

from __future__ import annotations

import math


def branch_objective(
    logits: list,
    offsets: list,
    positive: list,
    negative: list,
    boxes: list[tuple],
    *,
    ratio: float,
    no_pos: float,
    box_kind: str,
    box_norm: str,
    box_weight: float,
) -> tuple[float, float]:
    """Objective of one branch over a batch, before any 1/batch factor.

    Args:
        logits: [image][2][row][column]; offsets: [image][4][row][column].
        positive, negative: [image][row][column] bool.
        boxes: list of (image, row, column, four targets).

    Returns:
        Score and box part.
    """
    images, height, width = len(logits), len(logits[0][0]), len(logits[0][0][0])
    positives, negatives = [], []
    for n in range(images):
        for r in range(height):
            for c in range(width):
                face, background = logits[n][0][r][c], logits[n][1][r][c]
                norm = math.log(math.exp(face) + math.exp(background))
                if positive[n][r][c]:
                    positives.append(norm - face)
                if negative[n][r][c]:
                    negatives.append(norm - background)
    negatives.sort(reverse=True)
    kept = int(ratio * len(positives)) if positives else int(no_pos * len(negatives))
    selected = positives + negatives[:kept]
    score = sum(selected) / max(len(selected), 1)

    box = 0.0
    for n, r, c, target in boxes:
        if box_kind != "l2":
            # Corners from the RF's center, in units of the divisor.
            predicted = [-offsets[n][k][r][c] for k in range(4)]
            error = box_loss(box_kind, predicted, [-t for t in target])
            box += error / (2 * height * width if box_norm == "map" else len(boxes))
            continue
        for k in range(4):
            error = offsets[n][k][r][c] - target[k]
            if box_norm == "map":
                box += 0.5 * error**2 / (4 * height * width)
            else:
                box += error**2 / (4 * len(boxes))
    return score, box * box_weight


def box_loss(kind: str, first: list[float], second: list[float]) -> float:
    """1 - GIoU, DIoU or CIoU of two XYXY boxes (arXiv 1902.09630, 1911.08287)."""
    width = max(min(first[2], second[2]) - max(first[0], second[0]), 0)
    height = max(min(first[3], second[3]) - max(first[1], second[1]), 0)
    sides = [(b[2] - b[0], b[3] - b[1]) for b in (first, second)]
    union = sum(w * h for w, h in sides) - width * height
    iou = width * height / union
    hull_w = max(first[2], second[2]) - min(first[0], second[0])
    hull_h = max(first[3], second[3]) - min(first[1], second[1])
    if kind == "giou":
        return 1 - iou + (hull_w * hull_h - union) / (hull_w * hull_h)
    apart = sum(((first[k] + first[k + 2]) - (second[k] + second[k + 2])) ** 2 / 4 for k in (0, 1))
    loss = 1 - iou + apart / (hull_w**2 + hull_h**2)
    if kind == "ciou":
        v = (
            4
            / math.pi**2
            * (math.atan(sides[0][0] / sides[0][1]) - math.atan(sides[1][0] / sides[1][1])) ** 2
        )
        loss += v * v / (1 - iou + v)
    return loss
