"""The exported network, from raw images to maps or candidates."""

from __future__ import annotations

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.operators import shape_as_tensor

from face_d2.modeling.base import OneStageDetector

__all__ = ["ExportGraph"]


class ExportGraph(nn.Module):
    """Wraps a model for export, so that the model has no code for it.

    Args:
        min_side: the network enlarges images whose shorter side is below this, in pixels.
        maps: return the raw maps instead of candidates.
    """

    def __init__(self, model: OneStageDetector, min_side: int, maps: bool = False) -> None:
        super().__init__()
        self.model = model
        self.min_side = min_side
        self.maps = maps

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Prepares images (N, H, W, 3), uint8 in the model's channel order, and runs the model.

        Returns:
            The maps of ``forward_maps``, for the enlarged and padded images; or boxes (N, R, 4)
            XYXY in pixels of ``images``, scores (N, R) and levels (R,).
        """
        x = images.permute(0, 3, 1, 2).float()
        x = (x - self.model.pixel_mean) / self.model.pixel_std
        size = shape_as_tensor(x)[2:].float()  # (2,) height, width
        searched = size
        if self.min_side:
            searched = torch.maximum((size * self.min_side / size.min()).round(), size)
            x = F.interpolate(
                x,
                [int(v) for v in searched] if not torch.jit.is_tracing() else list(searched.long()),
                mode="bilinear",
                align_corners=False,
            )
        if self.model.size_divisibility > 1:
            height, width = (-searched.long()) % self.model.size_divisibility
            x = F.pad(x, (0, width, 0, height))
        maps = self.model.forward_maps(x)
        if self.maps:
            return maps
        boxes, scores, levels = self.model.decode(maps)
        if self.min_side:
            boxes = boxes * (size / searched).flip(0).repeat(2).to(boxes)
        if self.model.clips_before_nms:
            edges = size.flip(0).repeat(2).to(boxes)  # width, height, width, height
            boxes = torch.minimum(boxes.clamp(min=0), edges)
        return boxes, scores, levels
