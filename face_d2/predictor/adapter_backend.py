"""Other people's ONNX files behind :class:`face_d2.FaceDetector`."""

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
from face_d2.predictor.results import Found

__all__ = ["AdapterBackend"]

_UNLIMITED = 10**9


@dataclass(frozen=True)
class _AdapterSize(SizeRule):
    """The adapter resizes by itself; ``canvas``: the pixels it searches where they are fixed."""

    canvas: int | None = None

    def searched_pixels(self, height: int, width: int) -> float:
        """Pixels the network works on, whatever the image's size."""
        return float(self.canvas or height * width)


class AdapterBackend:
    """Runs a file that an adapter knows; see :class:`face_d2.predictor.api.Backend`.

    Args:
        path: the file.
        score_threshold: replaces the adapter's.
        threads: CPU threads; None leaves it to the runtime.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no adapter, or several, know the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        score_threshold: float | None = None,
        threads: int | None = None,
    ) -> None:
        options: dict[str, Any] = {} if score_threshold is None else {"score": score_threshold}
        self.detector: OnnxDetector = open_onnx(path, threads=threads or 0, **options)
        settings, canvas = self.detector.settings, self.detector.canvas
        pixels = math.prod(canvas) if canvas else settings.size and settings.size**2
        self.spec = DetectorSpec(
            detector=self.detector.about.title,
            config=Path(path).stem,
            input_format="BGR",
            size_rule=_AdapterSize(canvas=pixels),
            least_side=1,
            levels=(Level("", self.detector.multiple, (0.0, math.inf)),),
            suppression=Suppression(
                settings.score, _UNLIMITED, False, "iou", settings.nms, _UNLIMITED
            ),
        )
        self.runtime = f"{self.detector.graph.runtime}, {self.detector.about.title}"

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Found]:
        """See :class:`face_d2.predictor.api.Backend`; an adapter tells no levels."""
        answers = [self.detector.detect(image) for image in images]
        return [
            Found(boxes, scores, np.full(len(scores), -1, np.int64)) for boxes, scores in answers
        ]
