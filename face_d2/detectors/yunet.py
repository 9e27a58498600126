"""YuNet (Wu, Peng, Yu 2023): three levels, one point per cell.

Settings are those of the authors' evaluation: images at their own size, padded to a multiple of 32,
score > 0.02, NMS at IoU 0.45. The score is the product of class and object probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from face_d2.detectors.base import About
from face_d2.detectors.onnx_detector import Candidates, OnnxDetector, Settings, cell_centers
from face_d2.detectors.onnx_graph import Signature

__all__ = ["YuNet"]

_STRIDES = (8, 16, 32)


class YuNet(OnnxDetector):
    """Files of libfacedetection.train, and of OpenCV Zoo since March 2023."""

    adapter = "yunet"
    about = About(
        title="YuNet",
        source="https://github.com/ShiqiYu/libfacedetection.train",
        license="BSD-3-Clause (libfacedetection.train), MIT (OpenCV Zoo)",
        protocol_source="libfacedetection.train, README, Evaluation on WIDER Face",
    )
    defaults = Settings(size=None, score=0.02, nms=0.45)

    @classmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Recognizes the names of the four outputs per level."""
        names = {output.name for output in signature.outputs}
        return all(
            f"{kind}_{stride}" in names for kind in ("cls", "obj", "bbox") for stride in _STRIDES
        )

    def decode(self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]) -> Candidates:
        """Decodes boxes: shifts of the cell's corner, and logarithms of the sides, in strides."""
        of_name = dict(zip((tensor.name for tensor in self.graph.signature.outputs), outputs))
        boxes, scores = [], []
        for stride in _STRIDES:
            shifts = of_name[f"bbox_{stride}"].reshape(-1, 4) * [stride, stride, 1, 1]
            center = cell_centers(canvas, stride) + shifts[:, :2]
            half = np.exp(shifts[:, 2:]) * stride / 2
            boxes.append(np.concatenate([center - half, center + half], axis=1))
            scores.append((of_name[f"cls_{stride}"] * of_name[f"obj_{stride}"]).ravel())
        return np.concatenate(boxes), np.concatenate(scores)
