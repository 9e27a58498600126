"""The interface by which a meta-architecture reports which faces it can learn.

A meta-architecture returns its :class:`CoverageRule` from a method ``coverage_rule``;
:func:`build_coverage_rule` calls it. The rule uses the label assignment of training, so that the
report always agrees with training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from face_d2.config import with_overrides

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = ["CoverageRule", "FaceCoverage", "build_coverage_rule"]


@dataclass(frozen=True)
class FaceCoverage:
    """The result of a rule for the faces of one image.

    Attributes:
        outcomes: (M,) int64, index into ``covered_by + uncovered`` of the rule; undefined for
            ignored faces.
        positives: (M, L) int64, number of positive anchors or receptive fields of each face on
            every level.
    """

    outcomes: NDArray[np.int64]
    positives: NDArray[np.int64]


class CoverageRule(ABC):
    """Decides which faces the detector of a config can learn.

    Attributes:
        unit: what is assigned to faces, in the plural: "anchors", "receptive fields".
        covered_by: the ways in which a face can be covered, best first.
        uncovered: the reasons why a face is not covered.
        levels: names of the levels (L), shallow to deep.
    """

    unit: str
    covered_by: tuple[str, ...]
    uncovered: tuple[str, ...]
    levels: tuple[str, ...]

    def searched_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Input size of the network for a test image that the mapper resized to ``height`` x
        ``width``.

        None if the detector does not process images of this size.
        """
        return height, width

    @abstractmethod
    def __call__(
        self, boxes: NDArray[np.float64], ignore: NDArray[np.bool_], size: tuple[int, int]
    ) -> FaceCoverage:
        """Applies the rule to the faces of one image.

        Args:
            boxes: (M, 4) XYXY in pixels of the network's input, with positive sides.
            ignore: (M,) ignored faces, which can prevent that others are covered.
            size: (height, width) of the network's input.
        """


def build_coverage_rule(cfg: CfgNode, training: bool) -> CoverageRule:
    """Builds the model of a config on the CPU and returns its ``coverage_rule(training)``; see
    :class:`face_d2.modeling.base.OneStageDetector`.

    Raises:
        ValueError: the meta-architecture is unknown or does not have this method.
    """
    from detectron2.modeling import META_ARCH_REGISTRY, build_model

    having = {name for name, model in META_ARCH_REGISTRY if hasattr(model, "coverage_rule")}
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture not in having:
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {architecture!r} has no coverage rule; "
            f"{' and '.join(sorted(having))} do. Give it a method coverage_rule(training)."
        )
    cfg = with_overrides(cfg, ["MODEL.DEVICE", "cpu"])
    if "TIMM" in cfg.MODEL:
        cfg.MODEL.TIMM.WEIGHTS = ""  # the rule does not depend on weights
    return build_model(cfg).coverage_rule(training)
