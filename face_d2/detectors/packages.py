"""Detectors in Python packages: OpenCV's Haar cascade and facenet-pytorch's MTCNN."""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_d2.detectors.base import About, Detections, Detector, keep_best
from face_d2.utils.choices import check_number

__all__ = ["MTCNN", "HaarCascade"]

_FRONTAL = "haarcascade_frontalface_default.xml"


class HaarCascade(Detector):
    """The detector of Viola and Jones, with OpenCV's frontal cascade or a cascade in a file.

    Scale factor 1.1 and 3 neighbors are OpenCV's defaults. The score is the logistic function of
    the last stage's sum. It ranks the boxes, but is not a probability.
    """

    adapter = "haar"
    about = About(
        title="Haar cascade",
        source="https://github.com/opencv/opencv/tree/4.x/data/haarcascades",
        license="Intel License Agreement (BSD style), in the file",
        protocol_source="OpenCV, CascadeClassifier::detectMultiScale",
    )

    _SCALE_FACTOR = 1.1
    _NEIGHBORS = 3

    def __init__(self, path: str | Path | None = None) -> None:
        if not hasattr(cv2, "CascadeClassifier"):
            raise ImportError(
                f"OpenCV {cv2.__version__} has no CascadeClassifier, which was removed in "
                "version 5: pip install 'opencv-python<5'"
            )
        self.path = Path(cv2.data.haarcascades) / _FRONTAL if path is None else Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file")
        self._cascade = cv2.CascadeClassifier(str(self.path))
        if self._cascade.empty():
            raise ValueError(f"{self.path}: is not an OpenCV cascade")

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """See :meth:`Detector.detect`."""
        gray = cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        boxes, _, weights = self._cascade.detectMultiScale3(
            gray, self._SCALE_FACTOR, self._NEIGHBORS, outputRejectLevels=True
        )
        if not len(boxes):
            return Detections.none()
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        scores = 1 / (1 + np.exp(-np.asarray(weights, np.float64).ravel()))
        return keep_best(corners, scores, 0.0, 1.0)

    @property
    def protocol(self) -> dict[str, str]:
        """See :attr:`Detector.protocol`."""
        return {
            "file": self.path.name,
            "image size": "original",
            "input": "gray, histogram equalized",
            "score threshold": "none; the score only ranks the boxes",
            "NMS": f"{self._NEIGHBORS} neighbors, scale factor {self._SCALE_FACTOR:g}",
            "detections kept": "all",
            "test-time augmentation": "none",
            "runtime": f"OpenCV {cv2.__version__} on CPU",
        }

    @cached_property
    def sha256(self) -> str:
        """See :attr:`Detector.sha256`."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def file_bytes(self) -> int:
        """See :attr:`Detector.file_bytes`."""
        return self.path.stat().st_size


class MTCNN(Detector):
    """MTCNN (Zhang et al., arXiv 1604.02878) of the package facenet-pytorch, with its defaults.

    Args:
        min_face_size: minimum size of faces in pixels of the image.

    Raises:
        ImportError: facenet-pytorch cannot be imported.
        ValueError: the minimum size is below 1.
    """

    adapter = "mtcnn"
    about = About(
        title="MTCNN",
        source="https://github.com/timesler/facenet-pytorch",
        license="MIT",
        protocol_source="facenet-pytorch, MTCNN's default arguments",
    )

    _THRESHOLDS = (0.6, 0.7, 0.7)

    def __init__(self, min_face_size: int = 20) -> None:
        check_number("MTCNN's min_face_size", min_face_size, 1, whole=True)
        try:
            from facenet_pytorch import MTCNN as Package
        except ImportError as error:
            raise ImportError(
                f"facenet-pytorch cannot be imported ({error}): pip install --no-deps "
                "facenet-pytorch, and pip install requests (its own requirements ask for an older "
                "torch)"
            ) from error
        self.min_face_size = min_face_size
        self._network = Package(
            keep_all=True,
            min_face_size=min_face_size,
            thresholds=list(self._THRESHOLDS),
            device="cpu",
        )

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """See :meth:`Detector.detect`."""
        if min(image.shape[:2]) < self.min_face_size:
            return Detections.none()  # the package fails if its image pyramid has no level
        boxes, scores = self._network.detect(np.ascontiguousarray(image[:, :, ::-1]))
        if boxes is None:
            return Detections.none()
        return keep_best(boxes.astype(np.float64), scores.astype(np.float64), 0.0, 1.0)

    @property
    def protocol(self) -> dict[str, str]:
        """See :attr:`Detector.protocol`."""
        import torch

        return {
            "file": f"facenet-pytorch {version('facenet-pytorch')}",
            "image size": f"pyramid, faces of {self.min_face_size} px and more, factor 0.709",
            "input": "RGB, (pixel - 127.5) / 128",
            "score threshold": "stages " + ", ".join(f"{value:g}" for value in self._THRESHOLDS),
            "NMS": "IoU 0.7, last stage intersection over the smaller box 0.7",
            "detections kept": "all",
            "test-time augmentation": "none",
            "runtime": f"PyTorch {torch.__version__} on CPU",
        }

    @property
    def parameters(self) -> int:
        """See :attr:`Detector.parameters`."""
        return sum(weight.numel() for weight in self._network.parameters())
