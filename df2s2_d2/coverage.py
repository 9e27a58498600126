"""Which faces get positive anchors in DF2S2, computed by the matcher of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from df2s2_d2.anchors import AnchorGrid
from face_d2.modeling.coverage_rule import CoverageRule, FaceCoverage

if TYPE_CHECKING:
    from df2s2_d2.meta_arch import DF2S2

__all__ = ["AnchorCoverage"]


class AnchorCoverage(CoverageRule):
    """A face is covered if it has a positive anchor.

    An anchor is matched to the face with the highest IoU. In a crowd, a face can therefore have an
    anchor of the positive IoU that is matched to another face. Faces that have low-quality matches
    only are counted separately. Faces below ``MODEL.DF2S2.MIN_FACE`` have no anchor.

    Args:
        model: a DF2S2 or its RetinaNet baseline, on the CPU.
    """

    unit = "anchors"
    uncovered = ("no anchor",)

    def __init__(self, model: DF2S2) -> None:
        matcher = model.matcher
        floor = matcher.low_quality_min_iou
        self.covered_by = (
            f"IoU >= {matcher.positive_from:g}",
            f"low quality, IoU >= {floor:g}" if floor < 1 else "low quality (off)",
        )
        self.levels = tuple(model.in_features)
        self._model = model

    def __call__(
        self, boxes: NDArray[np.float64], ignore: NDArray[np.bool_], size: tuple[int, int]
    ) -> FaceCoverage:
        grid = self._grid(size)
        faces = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        found = self._model.matcher(grid, faces, torch.as_tensor(ignore))
        positive = found.labels == 1
        owner, level = found.faces[positive], grid.levels[positive]
        count, levels = len(boxes), len(self.levels)
        positives = torch.bincount(owner * levels + level, minlength=count * levels)
        by_threshold = torch.bincount(found.faces[positive & ~found.forced], minlength=count) > 0
        positives = positives.view(count, levels)
        outcomes = torch.where(by_threshold, 0, torch.where(positives.any(dim=1), 1, 2))
        return FaceCoverage(outcomes.numpy(), positives.numpy())

    def _grid(self, size: tuple[int, int]) -> AnchorGrid:
        height, width = self._model.padded_size(*size)
        # The network rounds up whenever it halves a map.
        return self._model._grid([(-(-height // s), -(-width // s)) for s in self._model.strides])
