"""DF2S2's labels and losses in plain loops, to check the vectorized ones against."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def iou(a: NDArray, b: NDArray) -> np.float32:
    """IoU of two XYXY boxes in single precision, operation by operation as the matcher's."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    inter = np.float32(width * height)
    area_a = np.float32((a[2] - a[0]) * (a[3] - a[1]))
    area_b = np.float32((b[2] - b[0]) * (b[3] - b[1]))
    return np.float32(inter / np.float32(np.float32(area_a + area_b) - inter))


def match(
    anchors: NDArray,
    levels: NDArray,
    boxes: NDArray,
    ignore: NDArray,
    low: float,
    high: float,
    floor: float,
    topk: int = 1,
) -> tuple[NDArray, NDArray]:
    """Labels (R,) and faces (R,) of the rules in ``FaceAnchorMatcher``'s docstring."""
    table = np.array([[iou(box, anchor) for anchor in anchors] for box in boxes])
    table = table.reshape(len(boxes), len(anchors))
    labels = np.zeros(len(anchors), dtype=int)
    faces = np.zeros(len(anchors), dtype=int)
    for r in range(len(anchors)):
        best, owner = 0.0, -1
        for m in range(len(boxes)):
            if not ignore[m] and table[m, r] > best:
                best, owner = table[m, r], m
        if best >= np.float32(high):
            labels[r], faces[r] = 1, owner
            continue
        if best >= np.float32(low):
            labels[r] = -1
        for m in range(len(boxes)):
            if ignore[m] and table[m, r] >= np.float32(low):
                labels[r] = -1
    thresholded = labels.copy()
    owners = {faces[r] for r in range(len(anchors)) if thresholded[r] == 1}
    claims: dict[int, list[tuple[float, int]]] = {}
    for m in range(len(boxes)):
        if ignore[m] or m in owners:
            continue
        free = [r for r in range(len(anchors)) if thresholded[r] != 1]
        fitting = [r for r in free if table[m, r] >= np.float32(floor) and table[m, r] > 0]
        if not fitting:
            continue
        last = sorted((table[m, r] for r in fitting), reverse=True)[:topk][-1]
        for r in fitting:
            if table[m, r] >= last:
                claims.setdefault(r, []).append((-float(table[m, r]), m))
    for r, wanting in claims.items():
        labels[r], faces[r] = 1, min(wanting)[1]
    return labels, faces


def losses(
    logits: list[NDArray],
    deltas: list[NDArray],
    masks: list[NDArray],
    anchors: NDArray,
    levels: NDArray,
    labels: NDArray,
    faces: NDArray,
    boxes: list[NDArray],
    mask_targets: list[NDArray],
    *,
    cls_norm: str,
    alpha: float,
    gamma: float,
    margin: float,
    beta: float,
    box_weight: float,
    seg_weight: float,
) -> dict[str, float]:
    """The loss of arXiv 1811.08557, 3.4, anchor by anchor and pixel by pixel, in double precision.

    Args:
        logits: per level (N, A, H, W).
        deltas: per level (N, 4A, H, W).
        masks: per level (N, 1, H, W) logits.
        anchors, levels: (R, 4), (R,).
        labels, faces: (N, R).
        boxes: per image (M, 4).
        mask_targets: per level (N, H, W) 0 or 1.
    """
    num_levels, num_images = len(logits), len(labels)
    cls_sum, box_sum = [0.0] * num_levels, [0.0] * num_levels
    counted, positives = [0] * num_levels, [0] * num_levels
    for n in range(num_images):
        r = 0
        for k in range(num_levels):
            _, num_anchors, height, width = logits[k].shape
            for y in range(height):
                for x in range(width):
                    for a in range(num_anchors):
                        label = labels[n, r]
                        if label >= 0:
                            counted[k] += 1
                            p = 1 / (1 + math.exp(-logits[k][n, a, y, x] - margin))
                            if label == 1:
                                cls_sum[k] += -alpha * (1 - p) ** gamma * math.log(p)
                            else:
                                cls_sum[k] += -(1 - alpha) * p**gamma * math.log(1 - p)
                        if label == 1:
                            positives[k] += 1
                            predicted = deltas[k][n, 4 * a : 4 * a + 4, y, x]
                            wanted = encode(anchors[r], boxes[n][faces[n, r]])
                            for d in np.abs(predicted - wanted):
                                box_sum[k] += 0.5 * d * d / beta if d < beta else d - 0.5 * beta
                        r += 1
    total = max(sum(positives), 1)
    cls = box = 0.0
    for k in range(num_levels):
        if cls_norm == "global_pos":
            cls, box = cls + cls_sum[k] / total, box + box_sum[k] / total
        else:
            by = positives[k] if cls_norm == "level_pos" else counted[k]
            cls, box = cls + cls_sum[k] / max(by, 1), box + box_sum[k] / max(positives[k], 1)
    seg = 0.0
    for k in range(num_levels):
        level = 0.0
        for n in range(num_images):
            for y, x in np.ndindex(mask_targets[k].shape[1:]):
                p = 1 / (1 + math.exp(-masks[k][n, 0, y, x]))
                level -= math.log(p) if mask_targets[k][n, y, x] else math.log(1 - p)
        seg += level / mask_targets[k].size
    return {"loss_cls": cls, "loss_box_reg": box_weight * box, "loss_seg": seg_weight * seg}


def encode(anchor: NDArray, box: NDArray) -> NDArray:
    """R-CNN's box deltas (arXiv 1311.2524, C)."""
    aw, ah = anchor[2] - anchor[0], anchor[3] - anchor[1]
    bw, bh = box[2] - box[0], box[3] - box[1]
    dx = ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / aw
    dy = ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / ah
    return np.array([dx, dy, math.log(bw / aw), math.log(bh / ah)])


def iou_loss(kind: str, a: list[float], b: list[float]) -> float:
    """1 - GIoU (arXiv 1902.09630, algorithm 1), DIoU or CIoU loss (arXiv 1911.08287, 7 and 10)."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a, b
    width = max(min(ax1, bx1) - max(ax0, bx0), 0)
    height = max(min(ay1, by1) - max(ay0, by0), 0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - width * height
    overlap = width * height / union
    hull_w, hull_h = max(ax1, bx1) - min(ax0, bx0), max(ay1, by1) - min(ay0, by0)
    if kind == "giou":
        return 1 - overlap + (hull_w * hull_h - union) / (hull_w * hull_h)
    distance = ((ax0 + ax1 - bx0 - bx1) / 2) ** 2 + ((ay0 + ay1 - by0 - by1) / 2) ** 2
    diou = 1 - overlap + distance / (hull_w**2 + hull_h**2)
    if kind == "diou":
        return diou
    angles = math.atan((bx1 - bx0) / (by1 - by0)) - math.atan((ax1 - ax0) / (ay1 - ay0))
    v = 4 / math.pi**2 * angles**2
    return diou + v * v / (1 - overlap + v)
