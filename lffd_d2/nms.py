"""Non-maximum suppression over the boxes of all branches together."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms as nms_iou

from face_d2.predictor.suppression import suppress as suppress_arrays

__all__ = ["NMS_TYPES", "suppress"]


def _nms_iom(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Suppression by intersection over the area of the lower-scored box, on the CPU.

    Arguments and result as of :func:`suppress`.
    """
    order = scores.argsort(descending=True, stable=True)
    sorted_boxes = boxes[order].detach().cpu().numpy()
    kept = suppress_arrays(sorted_boxes, "iom", threshold, len(sorted_boxes))
    return order[torch.from_numpy(kept).to(order.device)]


NMS_TYPES = {"iou": nms_iou, "iom": _nms_iom}


def suppress(boxes: Tensor, scores: Tensor, nms_type: str, threshold: float) -> Tensor:
    """Greedy class-agnostic suppression.

    Args:
        boxes: (N, 4) XYXY pixels.
        scores: (N,).
        nms_type: "iou", or "iom" for the released tool's measure.
        threshold: overlaps greater than this are suppressed.

    Returns:
        Indices of the boxes kept, best score first.

    Raises:
        ValueError: ``nms_type`` is unknown.
    """
    if nms_type not in NMS_TYPES:
        raise ValueError(f"MODEL.LFFD.NMS_TYPE is one of {list(NMS_TYPES)}, not {nms_type!r}")
    return NMS_TYPES[nms_type](boxes, scores, threshold)
