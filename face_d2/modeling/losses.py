"""What the losses of both detectors share: IoU losses by name, and counts over all processes."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

__all__ = ["IOU_LOSSES", "sum_over_processes"]

#: GIoU (arXiv 1902.09630), DIoU and CIoU (arXiv 1911.08287): functions of two (P, 4) sets of XYXY
#: boxes that return (P,) losses.
IOU_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}


def sum_over_processes(counts: Tensor) -> Tensor:
    """Sum of ``counts`` over all processes; ``counts`` itself if there is only one.

    Gradients are averaged over processes. Therefore, if a loss is divided by this sum and
    multiplied by the number of processes, its gradient is that of one process with the whole batch.
    """
    if comm.get_world_size() == 1:
        return counts
    counts = counts.clone()
    torch.distributed.all_reduce(counts)
    return counts
