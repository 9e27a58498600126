"""The base class of detectors in ONNX files: prepares images, runs the file, maps boxes back."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from face_d2.detectors.base import Detections, Detector, keep_best
from face_d2.detectors.onnx_graph import OnnxGraph, Signature
from face_d2.detectors.placement import Placement, fit_inside, pad_to_multiple, stretch

__all__ = [
    "Candidates",
    "OnnxDetector",
    "Settings",
    "cell_centers",
    "distances_to_boxes",
    "sigmoid",
]

#: (R, 4) boxes XYXY in pixels of the network's input, and (R,) scores.
Candidates: TypeAlias = tuple[NDArray[np.floating], NDArray[np.floating]]


@dataclass(frozen=True)
class Settings:
    """Settings that a user can change.

    Attributes:
        size: longer side in pixels to which images are scaled; None keeps the original size.
        score: detections need a score above this.
        nms: boxes with a larger IoU with a better box are suppressed.
    """

    size: int | None = None
    score: float = 0.02
    nms: float = 0.45

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 32:
            raise ValueError(f"size is {self.size}; expected at least 32 pixels")
        if not 0 <= self.score < 1:
            raise ValueError(f"score is {self.score}; expected [0, 1)")
        if not 0 < self.nms <= 1:
            raise ValueError(f"nms is {self.nms}; expected (0, 1]")


class OnnxDetector(Detector):
    """A detector in an ONNX file with one float image input (1, 3, H, W).

    A subclass declares how the authors prepare images, recognizes its files, and decodes their
    outputs.

    Args:
        graph: the file.
        settings: the settings, by default those of the authors' evaluation.

    Raises:
        ValueError: the file has the outputs of another detector, or it has a fixed input size and
            ``settings`` request another one.
    """

    #: Settings of the authors' evaluation.
    defaults: ClassVar[Settings]
    #: Channel order of the input, "BGR" or "RGB"; the mean that is subtracted; the divisor.
    channel_order: ClassVar[str] = "BGR"
    mean: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)
    divisor: ClassVar[float] = 1.0
    #: Sides of the input are multiples of this if the file does not fix them.
    multiple: ClassVar[int] = 32
    #: Value of the padding, and whether the image is centered in the input.
    padding: ClassVar[int] = 0
    centered: ClassVar[bool] = False
    #: Whether images are stretched to the input size instead of padded.
    stretched: ClassVar[bool] = False
    #: Whether boxes are clipped at the image borders.
    clipped: ClassVar[bool] = False
    #: Whether the file states an input size that the graph does not need.
    free_size: ClassVar[bool] = False

    def __init__(self, graph: OnnxGraph, settings: Settings | None = None) -> None:
        if not self.recognizes(graph.signature):
            raise ValueError(
                f"{graph.path}: is not a file of {self.about.title} ({graph.signature})"
            )
        self.graph = graph
        self.settings = self.defaults if settings is None else settings
        self.canvas = None if self.free_size else graph.signature.canvas
        wanted = self.settings.size
        if self.canvas and wanted not in (None, self.defaults.size, max(self.canvas)):
            raise ValueError(
                f"{graph.path}: takes images of {self.canvas[1]} x {self.canvas[0]} pixels only, "
                f"so size {wanted} is not possible; leave size out"
            )

    @classmethod
    @abstractmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Whether a file with this signature belongs to this detector."""

    @abstractmethod
    def decode(self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]) -> Candidates:
        """Decodes the outputs of the graph for an input ``canvas`` (height, width)."""

    def place(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Placement]:
        """The canvas that the network sees, and where the image lies on it."""
        canvas = self.canvas
        height, width = image.shape[:2]
        if canvas is None and self.settings.size is not None:
            scale = self.settings.size / max(height, width)
            canvas = self._rounded(round(height * scale), round(width * scale))
        elif canvas is None and self.stretched:
            canvas = self._rounded(height, width)
        if canvas is None:
            return pad_to_multiple(image, self.multiple, self.padding)
        if self.stretched:
            return stretch(image, canvas)
        return fit_inside(image, canvas, value=self.padding, centered=self.centered)

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """See :meth:`Detector.detect`."""
        canvas, placement = self.place(image)
        outputs = self.graph.run(self._blob(canvas))
        boxes, scores = self.decode(outputs, canvas.shape[:2])
        above = scores > self.settings.score
        boxes = placement.to_image(boxes[above], self.clipped)
        return keep_best(boxes, scores[above], self.settings.score, self.settings.nms)

    @property
    def protocol(self) -> dict[str, str]:
        """See :attr:`Detector.protocol`."""
        return {
            "file": f"{self.graph.path.name}, sha256 {self.graph.sha256[:12]}",
            "image size": self._size_in_words(),
            "input": self._input_in_words(),
            "score threshold": f"> {self.settings.score:g}",
            "NMS": f"IoU {self.settings.nms:g}",
            "detections kept": "all",
            "test-time augmentation": "none",
            "runtime": self.graph.runtime,
        }

    @property
    def sha256(self) -> str:
        """See :attr:`Detector.sha256`."""
        return self.graph.sha256

    @property
    def parameters(self) -> int | None:
        """See :attr:`Detector.parameters`."""
        return self.graph.parameters

    @property
    def file_bytes(self) -> int:
        """See :attr:`Detector.file_bytes`."""
        return self.graph.path.stat().st_size

    def _rounded(self, height: int, width: int) -> tuple[int, int]:
        step = self.multiple
        return max(math.ceil(height / step), 1) * step, max(math.ceil(width / step), 1) * step

    def _blob(self, canvas: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.channel_order == "RGB":
            canvas = canvas[:, :, ::-1]
        pixels = canvas.astype(np.float32)
        if any(self.mean):
            pixels -= np.array(self.mean, np.float32)
        if self.divisor != 1:
            pixels /= np.float32(self.divisor)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])

    def _size_in_words(self) -> str:
        if self.canvas is not None:
            shape = f"{self.canvas[1]} x {self.canvas[0]}"
            return f"stretched to {shape}" if self.stretched else f"scaled to fit {shape}, padded"
        how = "stretched" if self.stretched else "padded"
        rule = f"{how} to multiples of {self.multiple}" if self.multiple > 1 else "not padded"
        if self.settings.size is None:
            return f"original, {rule}"
        return f"longer side {self.settings.size}, {rule}"

    def _input_in_words(self) -> str:
        if any(self.mean) or self.divisor != 1:
            mean = ", ".join(f"{value:g}" for value in self.mean)
            return f"{self.channel_order}, (pixel - ({mean})) / {self.divisor:g}"
        return f"{self.channel_order}, 0-255"


def cell_centers(
    canvas: tuple[int, int], stride: int, offset: float = 0.0, repeat: int = 1
) -> NDArray[np.float32]:
    """Points of the cells of a map, row by row.

    Args:
        canvas: (height, width) of the input.
        stride: canvas pixels between neighboring cells.
        offset: position of the point in its cell, in cells: 0 is the corner, 0.5 the center.
        repeat: anchors of each cell.

    Returns:
        (R, 2) x, y in canvas pixels.
    """
    rows, columns = (math.ceil(side / stride) for side in canvas)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1).astype(np.float32)
    points = (np.stack([x, y], axis=1) + np.float32(offset)) * np.float32(stride)
    return np.repeat(points, repeat, axis=0)


def distances_to_boxes(
    points: NDArray[np.floating], distances: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Boxes XYXY from points (R, 2) and their distances (R, 4) to left, top, right and bottom."""
    return np.concatenate([points - distances[:, :2], points + distances[:, 2:]], axis=1)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """The logistic function, which does not overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))
