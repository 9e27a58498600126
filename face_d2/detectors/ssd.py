"""Detectors with anchors, as in SSD: RetinaFace, Face-Detector-1MB, S3FD, Ultra-Light.

The outputs are offsets from the anchors. Ultra-Light's files apply the offsets themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from face_d2.detectors.base import About
from face_d2.detectors.onnx_detector import Candidates, OnnxDetector, Settings, cell_centers
from face_d2.detectors.onnx_graph import Signature

__all__ = ["S3FD", "FaceDetector1MB", "RetinaFace", "UltraLight", "apply_offsets"]

_VARIANCES = (0.1, 0.2)


def apply_offsets(
    centers: NDArray[np.floating], sides: NDArray[np.floating], offsets: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Decodes boxes from offsets to anchors, as in SSD.

    Args:
        centers: (R, 2) centers of the square anchors, in pixels.
        sides: (R,) sides of the anchors, in pixels.
        offsets: (R, 4), the shift of the center divided by 0.1 anchor sides, and the logarithm of
            width and height in anchor sides, divided by 0.2.

    Returns:
        (R, 4) XYXY in pixels.
    """
    center = centers + offsets[:, :2] * _VARIANCES[0] * sides[:, None]
    half = np.exp(offsets[:, 2:] * _VARIANCES[1]) * sides[:, None] / 2
    return np.concatenate([center - half, center + half], axis=1)


class RetinaFace(OnnxDetector):
    """RetinaFace (Deng et al., arXiv 1905.00641) as trained and exported by Pytorch_Retinaface.

    Settings are those of that repository's ``test_widerface.py``: images at their own size, score >
    0.02, NMS at IoU 0.4. For a file with a fixed input size, the image is scaled to fit and padded.
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
    #: Sides of the anchors by stride.
    anchors: ClassVar[tuple[tuple[int, tuple[int, ...]], ...]] = (
        (8, (16, 32)),
        (16, (64, 128)),
        (32, (256, 512)),
    )

    @classmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Recognizes offsets (4), class probabilities (2) and landmarks (10), in any order.

        If the input size is fixed, their number must equal the number of anchors.
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

    def decode(self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]) -> Candidates:
        """Decodes the offsets from the anchors of all levels."""
        of_side = {output.shape[-1]: output.reshape(-1, output.shape[-1]) for output in outputs}
        centers, sides = self.anchors_of(canvas)
        if len(centers) != len(of_side[4]):
            raise ValueError(
                f"{self.graph.path}: has {len(of_side[4])} boxes for an input of "
                f"{canvas[1]} x {canvas[0]} pixels, but {self.about.title} has {len(centers)} "
                "anchors; it was trained with other anchors"
            )
        return apply_offsets(centers, sides, of_side[4]), of_side[2][:, 1]


class FaceDetector1MB(RetinaFace):
    """Face-Detector-1MB-with-landmark: RetinaFace's head on the networks slim and RFB.

    The anchors differ from RetinaFace's. Settings are those of the authors' ``test_widerface.py``:
    longer side 640 (they also report 320), score > 0.02, NMS at IoU 0.4. The files are those of
    ``convert_to_onnx.py`` with these networks (not MobileNet).
    """

    adapter = "facedetector1mb"
    about = About(
        title="Face-Detector-1MB",
        source="https://github.com/biubug6/Face-Detector-1MB-with-landmark",
        license="MIT",
        protocol_source="the repository's test_widerface.py, data/config.py and README",
    )
    defaults = Settings(size=640, score=0.02, nms=0.4)
    anchors = (
        (8, (10, 16, 24)),
        (16, (32, 48)),
        (32, (64, 96)),
        (64, (128, 192, 256)),
    )


class S3FD(OnnxDetector):
    """S3FD (Zhang et al., arXiv 1708.05237) exported as six pairs of maps.

    Each pair has two class maps before the softmax and four offset maps, as in the network of
    ``face_alignment``. Settings are those of the paper: score > 0.05, NMS at IoU 0.3. The adapter
    is tested with a graph that the tests build; it was not compared with a public file.
    """

    adapter = "s3fd"
    about = About(
        title="S3FD",
        source="https://arxiv.org/abs/1708.05237",
        license="depends on the author of the file",
        protocol_source="arXiv 1708.05237, sections 3.1 and 3.4",
    )
    defaults = Settings(size=None, score=0.05, nms=0.3)
    mean = (104.0, 117.0, 123.0)
    multiple = 1

    @classmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Recognizes six pairs of outputs, each with 2 class channels and 4 offset channels."""
        return signature.channels == (2, 4) * 6

    def decode(self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]) -> Candidates:
        """Decodes every level; the side of its anchors is four strides."""
        boxes, scores = [], []
        for level in range(6):
            stride = 2 ** (level + 2)
            classes, offsets = outputs[2 * level][0], outputs[2 * level + 1][0]
            rows, columns = classes.shape[1:]
            # VGG's padded layers can add a row or column to the input divided by the stride
            centers = cell_centers((rows * stride, columns * stride), stride, 0.5)
            sides = np.full(len(centers), 4 * stride, np.float32)
            boxes.append(apply_offsets(centers, sides, offsets.reshape(4, -1).T))
            scores.append(1 / (1 + np.exp((classes[0] - classes[1]).ravel().clip(-80, 80))))
        return np.concatenate(boxes), np.concatenate(scores)


class UltraLight(OnnxDetector):
    """Ultra-Light-Fast-Generic-Face-Detector-1MB, RFB and slim.

    Settings are those of the authors' WIDER FACE evaluation: the image is stretched to 320 x 240 or
    640 x 480, score > 0.1, NMS at IoU 0.3. The outputs are probabilities, and boxes as fractions of
    the image sides.
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
        """Recognizes probabilities (2) and boxes (4), with a fixed input size."""
        return signature.last_sides == (2, 4) and signature.canvas is not None

    def decode(self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]) -> Candidates:
        """Converts probabilities (1, R, 2) and boxes (1, R, 4), XYXY in fractions of the sides."""
        height, width = canvas
        boxes = outputs[1].reshape(-1, 4) * np.array([width, height, width, height], np.float32)
        return boxes, outputs[0].reshape(-1, 2)[:, 1]
