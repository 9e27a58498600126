"""Which faces get positive receptive fields in LFFD, computed by the label assignment of
training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from face_d2.modeling.coverage_rule import CoverageRule, FaceCoverage
from lffd_d2.assignment import faces_in_range, positives_per_face

if TYPE_CHECKING:
    from lffd_d2.meta_arch import LFFD

__all__ = ["ReceptiveFieldCoverage"]


class ReceptiveFieldCoverage(CoverageRule):
    """A face is covered if a branch has a positive receptive field (RF) in it.

    This requires that the size of the face is in the range of the branch, and that the face
    contains the center of an RF that is in no other face of the range and in no ignored face.

    Args:
        model: an LFFD, on the CPU.
        training: whether the branches in ``MODEL.LFFD.SKIP_BRANCHES`` count, which are trained but
            not used at inference.
    """

    unit = "receptive fields"
    covered_by = ("receptive field",)
    uncovered = ("size in no range", "no center of its own")

    def __init__(self, model: LFFD, training: bool) -> None:
        self._model = model
        used = model.branches if training else model.active_branches
        self._branches = [(n, b) for n, b in enumerate(model.branches) if b in used]
        self.levels = tuple(branch.tap for _, branch in self._branches)

    def searched_size(self, height: int, width: int) -> tuple[int, int] | None:
        """See :meth:`CoverageRule.searched_size` and :meth:`LFFD.searched_size`."""
        return self._model.searched_size(height, width)

    def __call__(
        self, boxes: NDArray[np.float64], ignore: NDArray[np.bool_], size: tuple[int, int]
    ) -> FaceCoverage:
        model = self._model
        rules = {"scale_measure": model.scale_measure, "min_face": model.min_face}
        map_sizes = model.backbone.variant.map_sizes(*size)
        faces = torch.as_tensor(boxes, dtype=torch.float32)
        out = torch.as_tensor(ignore)
        counts, in_range = [], []
        for number, branch in self._branches:
            counts.append(positives_per_face(branch, map_sizes[number], faces, out, **rules))
            in_range.append(faces_in_range(branch, faces, out, **rules)[0])
        positives = torch.stack(counts, dim=1)
        uncovered = torch.where(torch.stack(in_range).any(dim=0), 2, 1)
        outcomes = torch.where(positives.any(dim=1), 0, uncovered)
        return FaceCoverage(outcomes.numpy(), positives.numpy())
