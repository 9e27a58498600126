"""Face-Detector-1MB-with-landmark: RetinaFace's head on the networks slim and RFB.

The anchors differ from RetinaFace's. Settings are those of the authors' ``test_widerface.py``:
longer side 640 (they also report 320), score > 0.02, NMS at IoU 0.4.
"""

from __future__ import annotations

from face_d2.detectors.base import About
from face_d2.detectors.onnx_detector import Settings
from face_d2.detectors.ssd import RetinaFace

__all__ = ["FaceDetector1MB"]


class FaceDetector1MB(RetinaFace):
    """Files of ``convert_to_onnx.py`` with the networks slim and RFB (not MobileNet)."""

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
