"""The IoU-based box losses of both detectors, by name."""

from __future__ import annotations

from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)

__all__ = ["IOU_LOSSES"]

#: GIoU (arXiv 1902.09630), DIoU and CIoU (arXiv 1911.08287): functions of two (P, 4) sets of XYXY
#: boxes that return (P,) losses.
IOU_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}
