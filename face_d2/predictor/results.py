"""What a detector answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.nms import best_first

__all__ = ["FaceResult", "Found"]


@dataclass(frozen=True, eq=False)
class Found:
    """Faces in the pixels of the image a network was given; the order means nothing.

    Attributes:
        boxes: (N, 4) float32 XYXY.
        scores: (N,) float32.
        levels: (N,) int64, see :attr:`FaceResult.levels`.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    levels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FaceResult:
    """The faces of one image, best score first, equal scores in the order of their boxes.

    Attributes:
        boxes: (N, 4) float32 XYXY in pixels of the image as it is seen (EXIF orientation applied),
            within its borders.
        scores: (N,) float32 in 0-1.
        levels: (N,) int64, which of ``FaceDetector.levels`` found the face (LFFD's branch, DF2S2's
            pyramid level); -1 where the model does not say.
        height, width: size of the image in pixels; 0 where it could not be read.
        source: its path, or "" for an image that has none.
        error: what went wrong with this image, otherwise None. Then there are no faces.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    levels: NDArray[np.int64]
    height: int
    width: int
    source: str = ""
    error: Exception | None = None

    @classmethod
    def of_found(
        cls, found: Found, scale: tuple[float, float], min_size: float = 0, **image: Any
    ) -> FaceResult:
        """Brings what a network found to the pixels of the image.

        Args:
            found: the faces.
            scale: pixels of the image per pixel of the network's image, along x and y.
            min_size: boxes whose longer side is shorter than this, in pixels of the image, are
                left out.
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
    def of_error(cls, error: Exception, source: str) -> FaceResult:
        """An image that could not be read."""
        none = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        return cls(none.boxes, none.scores, none.levels, 0, 0, source, error)

    def above(self, score: float) -> FaceResult:
        """The faces that score more than ``score``."""
        number = int((self.scores > score).sum())  # the best come first
        return replace(
            self,
            boxes=self.boxes[:number],
            scores=self.scores[:number],
            levels=self.levels[:number],
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], float]]:
        """Pairs of box (4,) and score."""
        return zip(self.boxes, self.scores.tolist())

    def __repr__(self) -> str:
        what = f"error={self.error!r}" if self.error else f"{len(self)} faces"
        return f"FaceResult({what}, {self.height} x {self.width}, source={self.source!r})"
