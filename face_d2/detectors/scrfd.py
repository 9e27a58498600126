"""SCRFD (Guo et al., arXiv 2105.04714): three levels, two anchors per cell.

Settings are those of the authors' VGA evaluation: the image is scaled to fit into 640 x 640 and
padded on the right and at the bottom, score > 0.02, NMS at IoU 0.45 (test_cfg of their configs).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from face_d2.detectors.base import About
from face_d2.detectors.onnx_detector import (
    Candidates,
    OnnxDetector,
    Settings,
    cell_centers,
    distances_to_boxes,
)
from face_d2.detectors.onnx_graph import Signature

__all__ = ["SCRFD"]

_STRIDES = (8, 16, 32)
_ANCHORS = 2


class SCRFD(OnnxDetector):
    """InsightFace's files with and without landmarks (``det_500m``, ``scrfd_2.5g_kps``, ...)."""

    adapter = "scrfd"
    about = About(
        title="SCRFD",
        source="https://github.com/deepinsight/insightface/tree/master/detection/scrfd",
        license="code MIT; weights for non-commercial research only",
        protocol_source="insightface, detection/scrfd: README and configs (test_cfg)",
    )
    defaults = Settings(size=640, score=0.02, nms=0.45)
    channel_order = "RGB"
    mean = (127.5, 127.5, 127.5)
    divisor = 128.0
    padding = 127  # the authors pad with 0 after subtracting the mean

    @classmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Recognizes scores, distances and, if present, landmarks of three levels."""
        return signature.last_sides in ((1,) * 3 + (4,) * 3, (1,) * 3 + (4,) * 3 + (10,) * 3)

    def decode(self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]) -> Candidates:
        """Decodes boxes from the distances of their sides to the cell's corner, in strides."""
        boxes, scores = [], []
        for level, stride in enumerate(_STRIDES):
            points = cell_centers(canvas, stride, repeat=_ANCHORS)
            distances = outputs[level + len(_STRIDES)].reshape(-1, 4) * stride
            boxes.append(distances_to_boxes(points, distances))
            scores.append(outputs[level].ravel())
        return np.concatenate(boxes), np.concatenate(scores)
