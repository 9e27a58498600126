"""Face detection for Detectron2: data sets, protocols, training and prediction.

Importing this package loads neither torch nor Detectron2 and registers nothing until an attribute
that needs them is used. ``import face_d2.register`` registers the data sets;
``import df2s2_d2`` and ``import lffd_d2`` do so too and register the detectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from face_d2.config import get_cfg as get_cfg
    from face_d2.config import get_config_file as get_config_file
    from face_d2.predictor.api import FaceDetector as FaceDetector

__version__ = "0.1.0"

__all__ = ["FaceDetector", "__version__", "get_cfg", "get_config_file"]

_LAZY = {
    "FaceDetector": "face_d2.predictor.api",
    "get_cfg": "face_d2.config",
    "get_config_file": "face_d2.config",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module 'face_d2' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
