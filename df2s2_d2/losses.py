"""Detection losses of DF2S2 and their normalizers (arXiv 1811.08557, section 3.4).

Letters: N = images, R = anchors of all levels, L = levels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.utils import comm
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from face_d2.modeling.losses import IOU_LOSSES, sum_over_processes

__all__ = [
    "BOX_LOSSES",
    "CLS_NORMS",
    "box_loss",
    "classification_loss",
    "iou_box_loss",
    "level_weights",
]

#: The normalizers of the classification loss; the first is the default.
CLS_NORMS = ("global_pos", "level_pos", "level_all", "running_pos")

#: The losses of the boxes; the first is the default.
BOX_LOSSES = ("smooth_l1", *IOU_LOSSES)

_MOMENTUM = 0.9  # of the running mean, as in Detectron2's RetinaNet

# For IoU losses, box deltas are limited to a shift of 60 anchor sides and to sides of e^-4 to e^4
# (1/55 to 55) times the anchor's. Beyond that, float32 can lose the sides of a box.
_DELTA_LIMITS = (60.0, 60.0, 4.0, 4.0)


def level_weights(
    labels: Tensor,
    levels: Tensor,
    num_levels: int,
    cls_norm: str,
    running_positives: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weight of every level in the classification and the box loss.

    Counts are summed over all processes and divided by their number, because gradients are averaged
    over processes. The result equals that of one process with the whole batch.

    Args:
        labels: (N, R) 1 face, 0 background, -1 ignored.
        levels: (R,) level of every anchor.
        num_levels: L.
        cls_norm: the divisor. "global_pos": the positives of all levels, for both losses;
            "level_pos": the positives of the level, for both losses; "level_all": the anchors of
            the level that are not ignored for classification, its positives for boxes;
            "running_pos": a running mean of the divisor of "global_pos" for both losses, so that a
            batch with few faces has no more weight than others.
        running_positives: the running mean for "running_pos", a scalar that starts at 0; updated in
            place.

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
        alpha, gamma: parameters of the focal loss.
        margin: added to the logits (logit adjustment, arXiv 2007.07314, equation 10, with one term
            for all anchors). The learned logits are lower by this amount: scores become stricter,
            and their order does not change.
    """
    loss = sigmoid_focal_loss(
        logits.float() + margin, (labels == 1).float(), alpha=alpha, gamma=gamma
    )
    return (loss * (labels >= 0) * weights).sum()


def box_loss(deltas: Tensor, targets: Tensor, weights: Tensor, beta: float) -> Tensor:
    """Smooth L1 of the positives' box deltas (P, 4), summed over the four coordinates.

    At an error of ``beta``, the loss changes from quadratic to linear. ``weights`` is (P,).
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
        anchors, boxes: (P, 4) XYXY, the positive anchors and their targets.
        weights: (P,).
        transform: converts deltas to boxes.
    """
    deltas = deltas.float()
    limits = [limit * weight for limit, weight in zip(_DELTA_LIMITS, transform.weights)]
    # Only the value is limited, not the gradient, so that extreme predictions are corrected.
    columns = zip(deltas.unbind(dim=1), limits)
    limited = torch.stack([column.clamp(-limit, limit) for column, limit in columns], dim=1)
    deltas = limited.detach() + (deltas - deltas.detach())
    # The loss does not depend on the position, and coordinates near 0 are most precise.
    centers = (anchors[:, :2] + anchors[:, 2:]).repeat(1, 2) / 2
    found = transform.apply_deltas(deltas, anchors - centers)
    return (IOU_LOSSES[kind](found, boxes - centers) * weights).sum()
