"""A detector without a network, and what the original LFFD tool was run on."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from face_d2.ops.resize import SizeRule
from face_d2.ops.spec import DetectorSpec, Level, Suppression
from face_d2.predictor.results import RawDetections

#: The photographs whose boxes the original tool left.
REFERENCE_PHOTOS = [f"lffd_debug_test{number}.jpg" for number in (1, 2, 3, 5, 6)]
#: Its settings.
REFERENCE_SETTINGS = ("MODEL.LFFD.NMS_TYPE", "iom", "MODEL.LFFD.NMS_THRESH_TEST", 0.3)


class SquareFinder:
    """A backend without a network: finds green squares on anything else."""

    runtime = "squares"

    def __init__(self, input_format: str = "BGR", size_rule: SizeRule | None = None) -> None:
        self.spec = DetectorSpec(
            detector="squares",
            config="",
            input_format=input_format,
            size_rule=size_rule or SizeRule(),
            min_image_side=1,
            levels=(Level("only", 4, (4, 400)),),
            suppression=Suppression(0.1, 100, False, "iou", 0.5, 100),
        )
        self.calls: list[list[tuple[int, ...]]] = []

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[RawDetections]:
        self.calls.append([image.shape for image in images])
        return [self._find(image) for image in images]

    @staticmethod
    def _find(image: NDArray[np.uint8]) -> RawDetections:
        blue_red, middle = image[:, :, ::2].max(axis=2), image[:, :, 1]
        green = ((middle > 150) & (blue_red < 100)).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(green, connectivity=4)
        x, y, width, height, area = stats[1:].astype(np.float32).T
        boxes = np.stack([x, y, x + width, y + height], axis=1)
        return RawDetections(
            boxes, (0.5 + area / 1e6).astype(np.float32), np.zeros(len(boxes), np.int64)
        )


def interrupt_at(call: int, backend: SquareFinder, patch: pytest.MonkeyPatch) -> None:
    """Presses Ctrl-C in the backend's call of this number, counted from 0."""
    detect = backend.detect

    def interrupted(images: Sequence[NDArray[np.uint8]]) -> list[RawDetections]:
        if len(backend.calls) == call:
            signal.raise_signal(signal.SIGINT)
        return detect(images)

    patch.setattr(backend, "detect", interrupted)


def draw_squares(shape: tuple[int, int], squares: Sequence[tuple[int, int, int]]) -> Any:
    """A BGR image of gray noise with green squares (x, y, side)."""
    generator = np.random.default_rng(0)
    image = np.repeat(generator.integers(0, 200, (*shape, 1), dtype=np.uint8), 3, axis=2)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = (0, 255, 0)
    return image
