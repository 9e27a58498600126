"""Runs ONNX files of other projects for :class:`face_d2.FaceDetector`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_d2.detectors.onnx_detector import OnnxDetector
from face_d2.detectors.registry import open_onnx
from face_d2.ops.resize import SizeRule
from face_d2.ops.spec import DetectorSpec, Level, Suppression
from face_d2.predictor.results import RawDetections

__all__ = ["AdapterBackend"]

_UNLIMITED = 10**9


@dataclass(frozen=True)
class _AdapterSize(SizeRule):
    """For adapters, which resize images themselves; ``canvas``: a fixed number of input pixels."""

    canvas: int | None = None

    def searched_pixels(self, height: int, width: int) -> float:
        """Number of input pixels of the network for an image of this size."""
        return float(self.canvas or height * width)


class AdapterBackend:
    """Runs a file that an adapter recognizes; see :class:`face_d2.predictor.api.Backend`.

    ``score_threshold`` and ``threads``: see :meth:`face_d2.FaceDetector.from_onnx`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: ONNX Runtime is not installed.
        ValueError: no adapter, or more than one, recognizes the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        score_threshold: float | None = None,
        threads: int | None = None,
    ) -> None:
        self._arguments = (path, score_threshold, threads)
        options: dict[str, Any] = {} if score_threshold is None else {"score": score_threshold}
        self.detector: OnnxDetector = open_onnx(path, threads=threads or 0, **options)
        settings, canvas = self.detector.settings, self.detector.canvas
        pixels = math.prod(canvas) if canvas else settings.size and settings.size**2
        self.spec = DetectorSpec(
            detector=self.detector.about.title,
            config=Path(path).stem,
            input_format="BGR",
            size_rule=_AdapterSize(canvas=pixels),
            min_image_side=1,
            levels=(Level("", self.detector.multiple, (0.0, math.inf)),),
            suppression=Suppression(
                settings.score, _UNLIMITED, False, "iou", settings.nms, _UNLIMITED
            ),
        )
        self.runtime = f"{self.detector.graph.runtime}, {self.detector.about.title}"

    def __reduce__(self) -> tuple[type[AdapterBackend], tuple[Any, ...]]:
        """Pickles the arguments, so that another process loads the file itself."""
        return AdapterBackend, self._arguments

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[RawDetections]:
        """See :class:`face_d2.predictor.api.Backend`; adapters report no levels."""
        results = [self.detector.detect(image) for image in images]
        return [
            RawDetections(boxes, scores, np.full(len(scores), -1, np.int64))
            for boxes, scores in results
        ]
