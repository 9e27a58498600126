"""Published figures, for comparison with measured ones.

None of these figures was measured here. Each has its published test settings. Figures with
different test settings must not be compared with each other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["PUBLISHED", "PublishedFigure", "published_rows"]

_LFFD = "arXiv 1904.10633, Table 3"
_DF2S2 = "WIDER FACE leaderboard, the curves beside which arXiv 1811.08557 stands (as DFS)"
_ONE_PASS = "WIDER val, one pass at the original resolution"
_FINAL = "WIDER val, each author's final setting, as a rule several scales and flips"


@dataclass(frozen=True)
class PublishedFigure:
    """One published result.

    Attributes:
        detector: name of the detector.
        easy, medium, hard: AP in 0-100.
        protocol: description of images and sizes.
        source: the publication.
    """

    detector: str
    easy: float
    medium: float
    hard: float
    protocol: str
    source: str


def _rows(
    protocol: str, source: str, *rows: tuple[str, float, float, float]
) -> tuple[PublishedFigure, ...]:
    return tuple(PublishedFigure(*row, protocol, source) for row in rows)


PUBLISHED = (
    *_rows(
        _ONE_PASS,
        _LFFD,
        ("DSFD", 94.9, 93.6, 85.0),
        ("PyramidBox", 93.7, 92.7, 86.7),
        ("S3FD", 92.3, 90.7, 82.2),
        ("SSH", 92.1, 90.7, 70.2),
        ("FaceBoxes", 84.0, 76.6, 39.5),
        ("FaceBoxes 3.2x", 79.8, 80.2, 71.5),
        ("LFFD (25L8S)", 91.0, 88.1, 78.0),
    ),
    *_rows(
        _ONE_PASS,
        "README of LFFD's code",
        ("RetinaFace, MobileNet 0.25", 89.6, 87.1, 68.1),
    ),
    *_rows(
        _FINAL,
        _DF2S2,
        ("DF2S2", 96.9, 95.9, 91.2),
        ("RetinaFace, ResNet-152", 96.9, 96.1, 91.8),
        ("DSFD", 96.6, 95.7, 90.4),
        ("SRN", 96.4, 95.2, 90.1),
        ("PyramidBox", 96.1, 95.0, 88.9),
        ("FAN", 95.2, 94.0, 90.0),
        ("S3FD", 93.7, 92.5, 85.9),
        ("SSH", 93.1, 92.1, 84.5),
    ),
    *_rows(
        "WIDER val, original size, score > 0.02, NMS 0.45",
        "README of libfacedetection.train",
        ("YuNet-n", 89.2, 88.3, 81.1),
        ("YuNet-s", 88.7, 87.1, 76.8),
    ),
    *_rows(
        "WIDER val, scaled into 640 x 640 (VGA)",
        "README of insightface, detection/scrfd",
        ("SCRFD-0.5G, landmarks", 90.97, 88.44, 69.49),
        ("SCRFD-2.5G, landmarks", 93.80, 92.02, 77.13),
    ),
    *_rows(
        "WIDER val, original size",
        "README of Pytorch_Retinaface",
        ("RetinaFace, MobileNet 0.25", 90.70, 88.16, 73.82),
    ),
    *_rows(
        "WIDER val, longer side 640",
        "README of yolov5-face",
        ("RetinaFace, MobileNet 0.25", 87.78, 81.16, 47.32),
        ("YOLOv5n-0.5-face", 90.76, 88.12, 73.82),
    ),
    *_rows(
        "WIDER val, test size 640",
        "README of yolov8-face",
        ("YOLOv8-lite-t-face", 90.3, 87.5, 72.8),
    ),
    *_rows(
        "WIDER val, stretched to 320 x 240",
        "README of Ultra-Light-Fast-Generic-Face-Detector-1MB",
        ("Ultra-Light RFB-320", 78.7, 69.8, 43.8),
        ("Ultra-Light slim-320", 77.0, 67.1, 39.5),
    ),
    *_rows(
        "WIDER val, stretched to 640 x 480",
        "README of Ultra-Light-Fast-Generic-Face-Detector-1MB",
        ("Ultra-Light RFB-640", 85.5, 82.2, 57.9),
    ),
    *_rows(
        "WIDER val, longer side 640",
        "README of Face-Detector-1MB-with-landmark",
        ("Face-Detector-1MB, slim", 85.0, 80.8, 59.5),
        ("Face-Detector-1MB, RFB", 86.5, 82.8, 62.2),
    ),
    *_rows(_ONE_PASS, "README of CenterFace", ("CenterFace", 92.2, 91.1, 78.2)),
)


def published_rows() -> list[dict[str, Any]]:
    """All rows, ready for JSON."""
    return [asdict(figure) for figure in PUBLISHED]
