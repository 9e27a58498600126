"""Detectors whose outputs are offsets from anchors, as in SSD: RetinaFace, S3FD, Ultra-Light.

Ultra-Light's files apply the offsets themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from face_d2.detectors.base import About
from face_d2.detectors.onnx_detector import OnnxDetector, Settings, cell_centers
from face_d2.detectors.onnx_graph import Signature

__all__ = ["S3FD", "RetinaFace", "UltraLight", "apply_offsets"]

_VARIANCES = (0.1, 0.2)


def apply_offsets(
    centers: NDArray[np.floating],
    sides: NDArray[np.floating],
    offsets: NDArray[np.floating],
) -> NDArray[np.floating]:
    """SSD's boxes.

    Args:
        centers: (R, 2) of the square anchors, in pixels.
        sides: (R,) of the anchors, in pixels.
        offsets: (R, 4): shift of the center in anchor sides over 0.1, logarithm of width and height
            in anchor sides over 0.2.

    Returns:
        (R, 4) XYXY in pixels.
    """
    center = centers + offsets[:, :2] * _VARIANCES[0] * sides[:, None]
    half = np.exp(offsets[:, 2:] * _VARIANCES[1]) * sides[:, None] / 2
    return np.concatenate([center - half, center + half], axis=1)


class RetinaFace(OnnxDetector):
    """RetinaFace (Deng et al., arXiv 1905.00641) as trained and exported by Pytorch_Retinaface.

    Settings are those of that repository's ``test_widerface.py``: images at their own size, score >
    0.02, NMS at IoU 0.4. A file of fixed size gets the image scaled into it and padded.
    """

    adapter = "retinaface"
    about = About(
        title="RetinaFace",
        source="https://github.com/biubug6/Pytorch_Retinaface",
        license="MIT",
        protocol_source="Pytorch_Retinaface, test_widerface.py and data/config.py",
    )
    defaults = Settings(size=None, score=0.02, nms=0.4)
    mean = (104.0, 117.0, 123.0)
    multiple = 1
    #: Anchor sides of each stride.
    anchors: ClassVar[tuple[tuple[int, tuple[int, ...]], ...]] = (
        (8, (16, 32)),
        (16, (64, 128)),
        (32, (256, 512)),
    )

    @classmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Offsets (4), class probabilities (2) and landmarks (10), in any order.

        Where the file's size is fixed, their number has to be that of the anchors.
        """
        if sorted(side or 0 for side in signature.last_sides) != [2, 4, 10]:
            return False
        counts = {output.shape[1] for output in signature.outputs if len(output.shape) == 3}
        if signature.canvas is None or None in counts:
            return True
        return counts == {len(cls.anchors_of(signature.canvas)[1])}

    @classmethod
    def anchors_of(
        cls, canvas: tuple[int, int]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """(R, 2) centers and (R,) sides of all anchors of an input (height, width), in pixels."""
        centers, sides = [], []
        for stride, lengths in cls.anchors:
            points = cell_centers(canvas, stride, 0.5, len(lengths))
            centers.append(points)
            sides.append(np.tile(np.array(lengths, np.float32), len(points) // len(lengths)))
        return np.concatenate(centers), np.concatenate(sides)

    def decode(
        self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Offsets from the anchors of all levels."""
        of_side = {output.shape[-1]: output.reshape(-1, output.shape[-1]) for output in outputs}
        centers, sides = self.anchors_of(canvas)
        if len(centers) != len(of_side[4]):
            raise ValueError(
                f"{self.graph.path}: gives {len(of_side[4])} boxes for an input of "
                f"{canvas[1]} x {canvas[0]} pixels where {self.about.title} has {len(centers)} "
                "anchors; it was trained with other anchors"
            )
        return apply_offsets(centers, sides, of_side[4]), of_side[2][:, 1]


class S3FD(OnnxDetector):
    """S3FD (Zhang et al., arXiv 1708.05237) exported as six pairs of maps.

    Each pair has two class maps, whose softmax is taken here, and four offset maps, as
    ``face_alignment``'s network gives them. Settings are the paper's: score > 0.05, NMS at IoU 0.3.
    The tests decode a graph built for them; no public file was at hand to compare with.
    """

    adapter = "s3fd"
    about = About(
        title="S3FD",
        source="https://arxiv.org/abs/1708.05237",
        license="depends on who trained the file",
        protocol_source="arXiv 1708.05237, sections 3.1 and 3.4",
    )
    defaults = Settings(size=None, score=0.05, nms=0.3)
    mean = (104.0, 117.0, 123.0)
    multiple = 1

    @classmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Six times two class maps and four offset maps."""
        return signature.channels == (2, 4) * 6

    def decode(
        self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Level by level; the anchor of a level is four strides wide."""
        boxes, scores = [], []
        for level in range(6):
            stride = 2 ** (level + 2)
            classes, offsets = outputs[2 * level][0], outputs[2 * level + 1][0]
            rows, columns = classes.shape[1:]
            # VGG's padded layers may give a row or column more than the input divided by the stride
            centers = cell_centers((rows * stride, columns * stride), stride, 0.5)
            sides = np.full(len(centers), 4 * stride, np.float32)
            boxes.append(apply_offsets(centers, sides, offsets.reshape(4, -1).T))
            scores.append(1 / (1 + np.exp((classes[0] - classes[1]).ravel().clip(-80, 80))))
        return np.concatenate(boxes), np.concatenate(scores)


class UltraLight(OnnxDetector):
    """Ultra-Light-Fast-Generic-Face-Detector-1MB, RFB and slim.

    Settings are those of the authors' WIDER FACE evaluation: the image stretched to 320 x 240 or
    640 x 480, score > 0.1. They suppress with IoU 0.3. The file gives probabilities, and boxes as
    shares of the image's sides.
    """

    adapter = "ultralight"
    about = About(
        title="Ultra-Light",
        source="https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB",
        license="MIT",
        protocol_source="the repository's widerface_evaluate/ and vision/ssd/config/fd_config.py",
    )
    defaults = Settings(size=None, score=0.1, nms=0.3)
    channel_order = "RGB"
    mean = (127.0, 127.0, 127.0)
    divisor = 128.0
    stretched = True

    @classmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Probabilities (2) and boxes (4), for an input of fixed size."""
        return signature.last_sides == (2, 4) and signature.canvas is not None

    def decode(
        self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Shares of the sides to pixels."""
        height, width = canvas
        boxes = outputs[1].reshape(-1, 4) * np.array([width, height, width, height], np.float32)
        return boxes, outputs[0].reshape(-1, 2)[:, 1]
