"""Detection losses of DF2S2 and what they are divided by (arXiv 1811.08557, section 3.4).

Letters: N = images, R = anchors of all levels, L = levels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.utils import comm
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from face_d2.modeling.iou_loss import IOU_LOSSES
from face_d2.modeling.reduce import sum_over_processes

__all__ = [
    "BOX_LOSSES",
    "CLS_NORMS",
    "box_loss",
    "classification_loss",
    "iou_box_loss",
    "level_weights",
]

#: What divides the classification loss of a level; the first is the default.
CLS_NORMS = ("global_pos", "level_pos", "level_all", "running_pos")

#: The losses of the boxes; the first is the default.
BOX_LOSSES = ("smooth_l1", *IOU_LOSSES)

_MOMENTUM = 0.9  # of the running mean, as in Detectron2's RetinaNet

# An IoU loss sees a box at most 60 anchor sides away and between e^-4 and e^4 (1/55 and 55) times
# the anchor's sides. Beyond that, float32 can lose the box's sides.
_DELTA_LIMITS = (60.0, 60.0, 4.0, 4.0)


def level_weights(
    labels: Tensor,
    levels: Tensor,
    num_levels: int,
    cls_norm: str,
    running_positives: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weight of every level in the classification and the box loss.

    Counts are of the whole batch over all processes, divided by the number of processes because
    gradients are averaged over them; the result is that of one process with the whole batch.

    Args:
        labels: (N, R) 1 face, 0 background, -1 ignored.
        levels: (R,) level of every anchor.
        num_levels: L.
        cls_norm: "global_pos": both losses by the positives of all levels; "level_pos": both by the
            positives of the level; "level_all": classification by all anchors of the level that
            take part, boxes by its positives; "running_pos": both by a running mean of what
            "global_pos" divides by, so that a batch with few faces does not weigh more than others.
        running_positives: for "running_pos", a scalar, 0 at first; updated in place.

    Returns:
        Two (L,) tensors.
    """
    by_level = torch.zeros(2, num_levels, device=labels.device)
    by_level[0].index_add_(0, levels, (labels == 1).sum(0).float())
    by_level[1].index_add_(0, levels, (labels >= 0).sum(0).float())
    by_level = sum_over_processes(by_level)
    processes = comm.get_world_size()
    positive, counted = by_level.clamp(min=1) / processes
    if cls_norm in ("global_pos", "running_pos"):
        divisor = by_level[0].sum().clamp(min=1) / processes
        if running_positives is not None:
            before = torch.where(running_positives > 0, running_positives, divisor)
            divisor = running_positives.copy_(_MOMENTUM * before + (1 - _MOMENTUM) * divisor)
        every = (1 / divisor).expand(num_levels)
        return every, every
    return 1 / (positive if cls_norm == "level_pos" else counted), 1 / positive


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    alpha: float,
    gamma: float,
    margin: float = 0.0,
) -> Tensor:
    """Focal loss (arXiv 1708.02002, equation 5) over the anchors that are not ignored.

    Args:
        logits: (N, R).
        labels: (N, R) 1 face, 0 background, -1 ignored.
        weights: (R,) weight of every anchor.
        alpha, gamma: of the paper.
        margin: added to the logits (logit adjustment, arXiv 2007.07314, equation 10, with one term
            for all anchors). What is learned lies lower by as much: scores get stricter, their
            order does not change.
    """
    loss = sigmoid_focal_loss(
        logits.float() + margin, (labels == 1).float(), alpha=alpha, gamma=gamma
    )
    return (loss * (labels >= 0) * weights).sum()


def box_loss(deltas: Tensor, targets: Tensor, weights: Tensor, beta: float) -> Tensor:
    """Smooth L1 of the positives' box deltas, summed over the four coordinates.

    Args:
        deltas: (P, 4) predicted.
        targets: (P, 4).
        weights: (P,).
        beta: where the loss turns from quadratic to linear.
    """
    loss = F.smooth_l1_loss(deltas.float(), targets, beta=beta, reduction="none")
    return (loss.sum(dim=1) * weights).sum()


def iou_box_loss(
    kind: str,
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    weights: Tensor,
    transform: Box2BoxTransform,
) -> Tensor:
    """GIoU (arXiv 1902.09630), DIoU or CIoU loss (arXiv 1911.08287) of the positives' boxes.

    Args:
        kind: "giou", "diou" or "ciou".
        deltas: (P, 4) predicted.
        anchors: (P, 4) XYXY.
        boxes: (P, 4) XYXY, what each anchor is to find.
        weights: (P,).
        transform: turns deltas into boxes.
    """
    deltas = deltas.float()
    limits = [limit * weight for limit, weight in zip(_DELTA_LIMITS, transform.weights)]
    # The value is limited and the gradient is not, so that a wild prediction is pulled back.
    columns = zip(deltas.unbind(dim=1), limits)
    limited = torch.stack([column.clamp(-limit, limit) for column, limit in columns], dim=1)
    deltas = limited.detach() + (deltas - deltas.detach())
    # The loss does not depend on the place. Near 0, coordinates are the most precise.
    centres = (anchors[:, :2] + anchors[:, 2:]).repeat(1, 2) / 2
    found = transform.apply_deltas(deltas, anchors - centres)
    return (IOU_LOSSES[kind](found, boxes - centres) * weights).sum()
