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
        for k in range(4):
            error = offsets[n][k][r][c] - target[k]
            if box_norm == "map":
                box += 0.5 * error**2 / (4 * height * width)
            else:
                box += error**2 / (4 * len(boxes))
    return score, box * box_weight
