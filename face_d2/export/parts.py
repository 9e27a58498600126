"""What a detector tells about itself, so that it can be described and exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from torch import Tensor, nn

from face_d2.plugins import DETECTORS
from face_d2.predictor.model_card import ModelCard

__all__ = ["Candidates", "DetectorParts", "describe"]

#: Boxes (N, R, 4) XYXY in pixels of the searched image, scores (N, R) and levels (R,).
Candidates = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class DetectorParts:
    """A detector apart from its meta-architecture.

    Attributes:
        card: its contract.
        map_names: of what ``forward_maps`` gives.
        decode: those maps to candidates of all locations; traceable for any size and batch.
        cut_first: boxes are cut at the image's border before suppression, not after it.
    """

    card: ModelCard
    map_names: tuple[str, ...]
    decode: Callable[[Sequence[Tensor]], Candidates]
    cut_first: bool


def describe(model: nn.Module) -> DetectorParts:
    """Asks the model's plugin; each has a ``describe`` in its ``export`` module.

    Raises:
        ValueError: the model is none of the detectors'.
    """
    for package in DETECTORS:
        parts = import_module(f"{package}.export").describe(model)
        if parts is not None:
            return parts
    raise ValueError(
        f"META_ARCHITECTURE {type(model).__name__!r} is not a detector of {', '.join(DETECTORS)}"
    )
