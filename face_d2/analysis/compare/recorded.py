"""Recorded detections: a folder or archive of WIDER FACE text files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_d2.data.wider_face import image_key
from face_d2.detectors.base import Detections
from face_d2.evaluation.wider_face.files import read_predictions

__all__ = ["RecordedDetections"]


class RecordedDetections:
    """Prediction files in place of a detector.

    Args:
        path: folder or archive of ``EVENT/NAME.txt``, rows "x y w h score".

    Raises:
        FileNotFoundError: there is no such folder or archive.
        ValueError: a file is malformed; the message names it.
    """

    adapter = "predictions"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows = read_predictions(self.path)

    def of_image(self, name: str) -> Detections:
        """The detections of ``event/name``.

        Raises:
            ValueError: there is no file for this image.
        """
        key = image_key(name, self._rows)
        if key not in self._rows:
            raise ValueError(
                f"{self.path}: has no file {name}.txt; expected one for each image, also for an "
                "image without detections, or --images with the list of the images that it has."
            )
        rows: NDArray[np.float64] = np.asarray(self._rows[key], np.float64).reshape(-1, 5)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return Detections(boxes.astype(np.float32), rows[:, 4].astype(np.float32))

    @property
    def protocol(self) -> dict[str, str]:
        """The known test settings."""
        return {"file": self.path.name, "image size": "unknown: recorded detections"}

    @cached_property
    def fingerprint(self) -> Mapping[str, object]:
        """The content of all files."""
        digest = hashlib.sha256()
        for name in sorted(self._rows):
            digest.update(json.dumps([name, np.asarray(self._rows[name]).tolist()]).encode())
        return {"adapter": self.adapter, "version": 1, "sha256": digest.hexdigest()}
