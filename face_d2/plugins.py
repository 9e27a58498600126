"""The detectors this distribution ships, by the name of their package.

``face_d2`` never imports a detector directly; what must reach all of them goes through here.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["DETECTORS", "import_detectors"]

DETECTORS = ("df2s2_d2", "lffd_d2")


def import_detectors() -> list[ModuleType]:
    """Imports every detector, which registers it and the data sets with Detectron2."""
    return [import_module(name) for name in DETECTORS]
