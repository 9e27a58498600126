"""LFFD's losses: cross-entropy on the positives and the hardest negatives, and box losses.

Source: arXiv 1904.10633, section 3.4 (only the largest of the sorted negative losses are
propagated). The scale of the objective is that of the released code.

Letters: N images of a batch, (h, w) the map of a branch, P its positives.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.utils import comm
from torch import Tensor
from torch.nn import functional as F

from face_d2.modeling.losses import IOU_LOSSES, sum_over_processes
from face_d2.utils.choices import check_choice
from lffd_d2.assignment import BranchLabels

__all__ = ["LFFDLoss"]

FACE, BACKGROUND = 0, 1  # channels of the logits

_LOSS_SCALES = ("batch", "mean")
_BOX_NORMS = ("positives", "map")
_BOX_LOSSES = ("l2", *IOU_LOSSES)

# IoU losses widen boxes to at least this side, in units of the branch's divisor.
_MIN_SIDE = 0.1


class LFFDLoss:
    """The objective, summed over branches.

    Per branch, ``sum of cross-entropy over selected RFs / number selected`` plus ``box_weight * sum
    of box losses / box normalizer``. The box loss of an RF is the mean of the squared errors of its
    four offsets ("l2"), or GIoU, DIoU or CIoU of its box (arXiv 1902.09630, arXiv 1911.08287).

    The optimizer of the released code divides these gradients by the batch size, so its learning
    rate of 0.1 acts like 0.1 / 32 on mean losses. ``loss_scale="batch"`` includes this factor in
    the objective. ``loss_scale="batch", box_norm="map"`` is the released objective: ``1/N sum over
    branches of (mean cross-entropy + sum of squared offset errors / (8 h w))``.

    With several processes, the gradient is the mean of their gradients. Each process selects an
    equal share of the negatives among its own. All counts (selected, positives, images) are summed
    over the processes. If the same negatives are selected, the mean therefore equals the gradient
    of one process with the whole batch.

    Args:
        neg_pos_ratio: negatives kept per positive.
        neg_fraction_no_pos: fraction of the negatives kept on a branch without positives.
        loss_scale: "batch" or "mean".
        box_loss: "l2", "giou", "diou" or "ciou".
        box_norm: "positives", or "map": twice the area of the map, as in the released code.
        box_weight: factor on the box loss.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        neg_pos_ratio: float = 5,
        neg_fraction_no_pos: float = 0.1,
        loss_scale: str = "batch",
        box_loss: str = "l2",
        box_norm: str = "positives",
        box_weight: float = 1.0,
    ) -> None:
        if neg_pos_ratio <= 0:
            raise ValueError(
                f"MODEL.LFFD.NEG_POS_RATIO is {neg_pos_ratio}; expected a positive number"
            )
        if not 0 <= neg_fraction_no_pos <= 1:
            raise ValueError(
                f"MODEL.LFFD.NEG_FRACTION_NO_POS must lie in [0, 1], got {neg_fraction_no_pos}"
            )
        check_choice("MODEL.LFFD.LOSS_SCALE", loss_scale, _LOSS_SCALES)
        check_choice("MODEL.LFFD.BOX_LOSS", box_loss, _BOX_LOSSES)
        check_choice("MODEL.LFFD.BOX_NORM", box_norm, _BOX_NORMS)
        self.neg_pos_ratio = neg_pos_ratio
        self.neg_fraction_no_pos = neg_fraction_no_pos
        self.loss_scale = loss_scale
        self.box_loss = box_loss
        self.box_norm = box_norm
        self.box_weight = box_weight

    def __call__(
        self,
        logits: list[Tensor],
        offsets: list[Tensor],
        labels: list[BranchLabels],
    ) -> tuple[Tensor, Tensor]:
        """Score losses and weighted box losses, both (branches,); their sums are the objective.

        Args:
            logits: per branch, (N, 2, h, w), channel 0 face.
            offsets: per branch, (N, 4, h, w).
            labels: per branch.
        """
        processes = comm.get_world_size()
        positives = torch.stack([target.positive.sum() for target in labels])
        negatives = torch.stack([target.negative.sum() for target in labels])
        # Created on the device, because copying numbers from the host would make it wait.
        boxes = [positives.new_full((), len(target.box_cells)) for target in labels]
        images = positives.new_full((1,), len(logits[0]))
        all_positives, all_boxes, all_images = sum_over_processes(
            torch.cat([positives, torch.stack(boxes), images])
        ).split([len(labels), len(labels), 1])
        kept = self._kept_negatives(all_positives.double() / processes, negatives)
        all_selected = sum_over_processes(positives + kept)

        score_sums = [
            _cross_entropy(branch_logits, target, count)
            for branch_logits, target, count in zip(logits, labels, kept.tolist())
        ]
        box_sums = self._box_losses(offsets, labels)
        if self.box_norm == "positives":
            box_means = torch.stack(box_sums) / all_boxes.clamp(min=1)
        else:
            areas = [o.shape[2] * o.shape[3] for o in offsets]
            box_means = torch.stack([total / (2 * area) for total, area in zip(box_sums, areas)])

        scale = processes / (all_images if self.loss_scale == "batch" else 1)
        score = torch.stack(score_sums) / all_selected.clamp(min=1) * scale
        return score, box_means * (scale * self.box_weight)

    def _kept_negatives(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """(branches,) int64 numbers of selected negatives, from the mean positives per process
        (float64) and the negatives of this process (int64)."""
        by_ratio = torch.minimum(self.neg_pos_ratio * positives, negatives.double()).long()
        by_share = (self.neg_fraction_no_pos * negatives.double()).long()
        return torch.where(positives > 0, by_ratio, by_share)

    def _box_losses(self, offsets: list[Tensor], labels: list[BranchLabels]) -> list[Tensor]:
        """For each branch, the sum of the box losses over the RFs with box targets."""
        predicted = []
        for branch_offsets, target in zip(offsets, labels):
            image, row, column = target.box_cells.unbind(1)
            predicted.append(branch_offsets[image, :, row, column].float())
        predicted = torch.cat(predicted)  # (P, 4)
        wanted = torch.cat([target.box_targets for target in labels])
        if self.box_loss == "l2":
            losses = (predicted - wanted).square().mean(dim=1)
        else:
            losses = _iou_losses(IOU_LOSSES[self.box_loss], predicted, wanted)
        parts = losses.split([len(target.box_cells) for target in labels])
        return [part.sum() for part in parts]


def _cross_entropy(logits: Tensor, target: BranchLabels, kept: int) -> Tensor:
    """Sum of the cross-entropies of the positives and of the ``kept`` hardest negatives.

    Masks are applied with ``where``, because indexing by a mask makes the host wait for the GPU.
    """
    losses = -F.log_softmax(logits.float(), dim=1)
    positive = torch.where(target.positive, losses[:, FACE], 0.0)
    negative = torch.where(target.negative, losses[:, BACKGROUND], -torch.inf)
    return positive.sum() + negative.flatten().topk(kept, sorted=False).values.sum()


def _iou_losses(
    loss: Callable[[Tensor, Tensor], Tensor], predicted: Tensor, wanted: Tensor
) -> Tensor:
    """(P,) losses of boxes given by their offsets (P, 4), ``loss`` for XYXY boxes.

    An offset is (RF center - corner) / divisor. IoU does not depend on origin and unit, so the
    negated offsets are used as corners. A predicted box can have its right side left of its left
    side, and a network that is initialized with zeros predicts boxes without area. Such boxes have
    no overlap from which to learn. Sides below ``_MIN_SIDE`` are therefore widened to it, and the
    missing length is added to the loss.
    """
    centers = -(predicted[:, :2] + predicted[:, 2:]) / 2
    sides = predicted[:, :2] - predicted[:, 2:]
    half = torch.where(sides < _MIN_SIDE, _MIN_SIDE, sides) / 2
    lacking = F.relu(_MIN_SIDE - sides).sum(dim=1)
    return loss(torch.cat([centers - half, centers + half], dim=1), -wanted) + lacking
