"""How a meta-architecture says which faces it can answer for.

A meta-architecture returns its :class:`CoverageRule` from a method ``coverage_rule``;
:func:`build_coverage_rule` calls it. The rule asks the code that labels the detector's
training data, so that the report cannot tell another story than the training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = ["CoverageRule", "FaceAnswers", "build_coverage_rule"]


@dataclass(frozen=True)
class FaceAnswers:
    """What a rule says of the faces of one image.

    Attributes:
        verdicts: (M,) int64, index into the rule's ``answers`` followed by its ``gaps``; without
            meaning for ignored faces.
        positives: (M, L) int64, positive anchors or receptive fields a face has on every level.
    """

    verdicts: NDArray[np.int64]
    positives: NDArray[np.int64]


class CoverageRule(ABC):
    """Which faces a detector of one config can answer for.

    Attributes:
        unit: what answers, in the plural: "anchors", "receptive fields".
        answers: the ways in which a face may be answered for, the best first.
        gaps: the reasons why a face may not be.
        levels: names of the levels (L) that answer, shallow to deep.
    """

    unit: str
    answers: tuple[str, ...]
    gaps: tuple[str, ...]
    levels: tuple[str, ...]

    def searched_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Size at which the network sees a test image that the mapper made ``height`` x ``width``.

        None when the detector does not search an image of that size at all.
        """
        return height, width

    @abstractmethod
    def __call__(
        self, boxes: NDArray[np.float64], ignore: NDArray[np.bool_], size: tuple[int, int]
    ) -> FaceAnswers:
        """Judges the faces of one image.

        Args:
            boxes: (M, 4) XYXY in pixels of the network's input, with positive sides.
            ignore: (M,) faces that do not count, but may stand in the way of others.
            size: (height, width) of the network's input.
        """


def build_coverage_rule(cfg: CfgNode, training: bool) -> CoverageRule:
    """Builds the model of a config on the CPU and returns its rule.

    Args:
        cfg: of a meta-architecture with a method ``coverage_rule(training)``, as
            :class:`face_d2.modeling.base.OneStageDetector` has it.
        training: judge by the levels that are trained, not by those used at inference.

    Raises:
        ValueError: the meta-architecture is unknown or has no such method.
    """
    from detectron2.modeling import META_ARCH_REGISTRY, build_model

    having = {name for name, model in META_ARCH_REGISTRY if hasattr(model, "coverage_rule")}
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture not in having:
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {architecture!r} does not say which faces it can answer for; "
            f"{' and '.join(sorted(having))} do. Give it a method coverage_rule(training)."
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    if "TIMM" in cfg.MODEL:
        cfg.MODEL.TIMM.WEIGHTS = ""  # the rule depends on no weights
    return build_model(cfg).coverage_rule(training)
