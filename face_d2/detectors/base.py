"""The interface of all detectors in this package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.nms import best_first, suppress

__all__ = ["About", "Detections", "Detector", "keep_best"]


class Detections(NamedTuple):
    """The faces of one image, best score first.

    Attributes:
        boxes: (N, 4) float32 XYXY in pixels of the image.
        scores: (N,) float32.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    @classmethod
    def none(cls) -> Detections:
        """No face."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True)
class About:
    """Information about a detector.

    Attributes:
        title: name in tables.
        source: repository or paper, as a URL.
        license: license of code and weights, as stated by the authors.
        protocol_source: source of the authors' settings, which the adapter uses.
    """

    title: str
    source: str
    license: str
    protocol_source: str


class Detector(ABC):
    """Detects faces. Each subclass implements the input, output and settings of one detector."""

    #: The detector's name on the command line.
    adapter: ClassVar[str]
    #: Increased whenever the same file gives other boxes; cached results of other versions are not
    #: used.
    version: ClassVar[int] = 1
    about: ClassVar[About]

    @abstractmethod
    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """Detects the faces in an image (H, W, 3), BGR, uint8."""

    @property
    @abstractmethod
    def protocol(self) -> dict[str, str]:
        """The settings for images and boxes, setting -> readable value."""

    @property
    def parameters(self) -> int | None:
        """Number of weights; None if it is not known."""
        return None

    @property
    def file_bytes(self) -> int | None:
        """Size of the file in bytes; None if there is no file."""
        return None

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the content of the detector's file; None if there is no file."""
        return None

    @property
    def fingerprint(self) -> Mapping[str, object]:
        """Everything on which the boxes depend, ready for JSON.

        A file counts by its content, not by its name.
        """
        known = {"adapter": self.adapter, "version": self.version, "protocol": self.protocol}
        if self.sha256 is None:
            return known
        protocol = {key: text for key, text in self.protocol.items() if key != "file"}
        return {**known, "protocol": protocol, "sha256": self.sha256}


def keep_best(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    score_threshold: float,
    nms_threshold: float,
) -> Detections:
    """Applies a score threshold and greedy NMS by IoU.

    Args:
        boxes: (R, 4) XYXY.
        scores: (R,).
        score_threshold: detections need a score above this.
        nms_threshold: boxes with a larger IoU are suppressed; 1 suppresses nothing.

    Returns:
        The detections, best first. Boxes that are not finite or have no area are left out.
    """
    kept = (scores > score_threshold) & np.isfinite(boxes).all(axis=1)
    kept &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    boxes, scores = boxes[kept].astype(np.float32), scores[kept].astype(np.float32)
    order = best_first(boxes, scores)
    boxes, scores = boxes[order], scores[order]
    if nms_threshold < 1:
        chosen = suppress(boxes, "iou", nms_threshold, len(boxes))
        boxes, scores = boxes[chosen], scores[chosen]
    return Detections(boxes, scores)
