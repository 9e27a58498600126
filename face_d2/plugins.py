"""The detectors of this distribution, by the name of their package.

``face_d2`` never imports a detector directly; code for all detectors uses this module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detectron2.config import CfgNode

    from face_d2.model_zoo import Model

__all__ = ["DETECTORS", "DetectorPackage", "import_detectors"]

DETECTORS = ("df2s2_d2", "lffd_d2")


class DetectorPackage(Protocol):
    """The interface of a detector package.

    Importing it registers a meta-architecture, a subclass of
    :class:`face_d2.modeling.base.OneStageDetector`, whose methods are the rest of the contract.

    Attributes:
        MODELS: the models with weights, for :mod:`face_d2.model_zoo`.
    """

    MODELS: Sequence[Model]

    def add_config(self, cfg: CfgNode) -> None:
        """Adds its keys to a Detectron2 config, in place."""


def import_detectors() -> list[DetectorPackage]:
    """Imports the packages of all detectors and returns them.

    The import registers the detectors and the data sets with Detectron2.
    """
    return [cast(DetectorPackage, import_module(name)) for name in DETECTORS]
