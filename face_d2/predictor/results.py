"""Detections of one image, as a backend returns them and as a user gets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.nms import best_first

__all__ = ["FaceResult", "RawDetections", "first_faces"]


@dataclass(frozen=True, eq=False)
class RawDetections:
    """Faces that a backend found in one image, in any order.

    Attributes:
        boxes: (N, 4) float32 XYXY in pixels of the image that the backend was given.
        scores: (N,) float32.
        levels: (N,) int64, see :attr:`FaceResult.levels`.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    levels: NDArray[np.int64]

    @classmethod
    def empty(cls) -> RawDetections:
        """No faces."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class FaceResult:
    """The faces of one image, sorted by score; equal scores are sorted by their boxes.

    Attributes:
        boxes: (N, 4) float32 XYXY in pixels of the upright image (EXIF orientation applied),
            clipped to the image.
        scores: (N,) float32 in 0-1.
        levels: (N,) int64, index into ``FaceDetector.levels`` of the level that detected the face
            (a branch of LFFD, a pyramid level of DF2S2); -1 if the model does not report it.
        height, width: size of the image in pixels; 0 if it could not be read.
        source: path of the image, or "" if it has none.
        error: the error that prevented the search, in which case there are no faces; otherwise
            None.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    levels: NDArray[np.int64]
    height: int
    width: int
    source: str = ""
    error: Exception | None = None

    @classmethod
    def from_raw(
        cls, found: RawDetections, scale: tuple[float, float], min_size: float = 0, **image: Any
    ) -> FaceResult:
        """Converts the detections of a backend to pixels of the original image.

        Args:
            found: the detections.
            scale: pixels of the original image per pixel of the searched one, along x and y.
            min_size: boxes with a longer side below this, in pixels of the original image, are left
                out.
            image: ``height``, ``width`` and ``source``.
        """
        boxes = found.boxes * np.array([*scale, *scale], dtype=np.float32)
        edges = np.array([image["width"], image["height"]] * 2, dtype=np.float32)
        boxes = boxes.clip(0, edges)
        order = best_first(boxes, found.scores)
        sides = boxes[order, 2:] - boxes[order, :2]
        order = order[(sides > 0).all(axis=1) & (sides.max(axis=1, initial=0) >= min_size)]
        return cls(boxes[order], found.scores[order], found.levels[order], **image)

    @classmethod
    def from_error(cls, error: Exception, source: str) -> FaceResult:
        """The result of an image that could not be read."""
        none = RawDetections.empty()
        return cls(none.boxes, none.scores, none.levels, 0, 0, source, error)

    def above(self, score: float) -> FaceResult:
        """The faces that score more than ``score``."""
        return first_faces(self, int((self.scores > score).sum()))

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], float]]:
        """Pairs of box (4,) and score."""
        return zip(self.boxes, self.scores.tolist())

    def __repr__(self) -> str:
        what = f"error={self.error!r}" if self.error else f"{len(self)} faces"
        return f"FaceResult({what}, {self.height} x {self.width}, source={self.source!r})"


def first_faces(result: FaceResult, number: int) -> FaceResult:
    """The ``number`` faces with the best scores."""
    return replace(
        result,
        boxes=result.boxes[:number],
        scores=result.scores[:number],
        levels=result.levels[:number],
    )
