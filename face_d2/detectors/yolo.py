"""The YOLO family trained on faces: YOLOv5-face, YOLOv8-face, and plain Ultralytics exports."""

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
    sigmoid,
)
from face_d2.detectors.onnx_graph import Signature

__all__ = ["YOLOv5Face", "YOLOv8Face"]

_STRIDES = (8, 16, 32)
#: Width and height of the three anchors of each stride, models/yolov5n.yaml of YOLOv5-face.
_ANCHORS = (
    ((4, 5), (8, 10), (13, 16)),
    ((23, 29), (43, 55), (73, 105)),
    ((146, 217), (231, 300), (335, 433)),
)
_LANDMARKS = 10


class _Letterboxed(OnnxDetector):
    """Scales the image into the canvas and pads it with gray on both sides."""

    channel_order = "RGB"
    divisor = 255.0
    padding = 114
    centered = True
    clipped = True


class YOLOv5Face(_Letterboxed):
    """YOLO5Face (Qi et al., arXiv 2105.12931): three levels, three anchors, five landmarks.

    Settings are those of the authors' ``test_widerface.py`` on VGA: longer side 640, score > 0.02,
    NMS at IoU 0.5. The score is the product of object and class probability. The outputs are
    either three maps before the logistic function, (1, 3, h, w, 16), or one tensor (1, R, 16).
    """

    adapter = "yolov5face"
    about = About(
        title="YOLOv5-face",
        source="https://github.com/deepcam-cn/yolov5-face",
        license="GPL-3.0",
        protocol_source="yolov5-face, test_widerface.py and README",
    )
    defaults = Settings(size=640, score=0.02, nms=0.5)

    @classmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Recognizes 16 numbers per box: box, object, landmarks and class."""
        return signature.last_sides in ((16,), (16,) * 3)

    def decode(self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]) -> Candidates:
        """Decodes boxes as YOLOv5 does: centers and sides are functions of logistic values."""
        if len(outputs) == 1:
            rows = outputs[0].reshape(-1, 16)
            return _corners(rows[:, :4]), rows[:, 4] * rows[:, 5 + _LANDMARKS]
        boxes, scores = [], []
        for stride, anchors, maps in zip(_STRIDES, _ANCHORS, outputs):
            rows = sigmoid(maps.reshape(len(anchors), -1, 16)[:, :, [0, 1, 2, 3, 4, 15]])
            corner = cell_centers(canvas, stride)
            center = corner + (2 * rows[:, :, :2] - 0.5) * stride
            sides = (2 * rows[:, :, 2:4]) ** 2 * np.array(anchors, np.float32)[:, None]
            boxes.append(_corners(np.concatenate([center, sides], axis=2).reshape(-1, 4)))
            scores.append((rows[:, :, 4] * rows[:, :, 5]).ravel())
        return np.concatenate(boxes), np.concatenate(scores)


class YOLOv8Face(_Letterboxed):
    """YOLOv8 and YOLO11 trained on faces, with or without landmarks.

    Settings are those of yolov8-face's WIDER FACE evaluation: longer side 640, NMS at IoU 0.5; the
    score threshold is 0.02 as in YOLOv5-face. The outputs are either three maps, each with a
    distribution over 16 distances for the four sides (64 channels), the logit of the face, and
    optional landmarks; or, in exports of Ultralytics, (1, 4 + 1 + landmarks, R) with center, sides
    and probability.
    """

    adapter = "yolov8face"
    about = About(
        title="YOLOv8-face",
        source="https://github.com/derronqi/yolov8-face",
        license="GPL-3.0 (yolov8-face), AGPL-3.0 (Ultralytics)",
        protocol_source="yolov8-face, README and widerface/",
    )
    defaults = Settings(size=640, score=0.02, nms=0.5)

    _BINS = 16
    #: Without landmarks, with five landmarks of two numbers, with five of three.
    _EXTRA = (0, 10, 15)

    @classmethod
    def recognizes(cls, signature: Signature) -> bool:
        """Recognizes the number of channels."""
        maps = {4 * cls._BINS + 1 + extra for extra in cls._EXTRA}
        if len(signature.outputs) == 3:
            return len(set(signature.channels)) == 1 and set(signature.channels) <= maps
        if len(signature.outputs) != 1 or len(signature.outputs[0].shape) != 3:
            return False
        return signature.channels[0] in {5 + extra for extra in cls._EXTRA}

    def decode(self, outputs: Sequence[NDArray[np.float32]], canvas: tuple[int, int]) -> Candidates:
        """Decodes boxes; the distance of a side is the mean of its distribution."""
        if len(outputs) == 1:
            rows = outputs[0][0].T
            return _corners(rows[:, :4]), rows[:, 4]
        boxes, scores = [], []
        for maps in sorted((output[0] for output in outputs), key=lambda m: -m.shape[1]):
            stride = canvas[0] // maps.shape[1]
            logits = maps[: 4 * self._BINS].reshape(4, self._BINS, -1)
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            steps = np.arange(self._BINS, dtype=np.float32)
            distances = np.einsum("sbr,b->rs", weights, steps) / weights.sum(axis=1).T
            points = cell_centers(canvas, stride, 0.5)
            boxes.append(distances_to_boxes(points, distances * stride))
            scores.append(sigmoid(maps[4 * self._BINS].ravel()))
        return np.concatenate(boxes), np.concatenate(scores)


def _corners(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Converts (R, 4) center x, y, width, height to XYXY."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
