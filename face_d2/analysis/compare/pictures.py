"""The photographs on the page: those on which detectors differ most or miss the most faces."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_d2.analysis.compare.data import ImageSet
from face_d2.analysis.compare.measures import Measured
from face_d2.data.image_file import read_image
from face_d2.detectors import Detections

__all__ = ["choose_pictures", "describe_pictures"]

_MIN_SCORE = 0.1
_MAX_BOXES = 150
_SIDE = 560
_QUALITY = 60


def choose_pictures(
    measured: Mapping[str, Measured], setting: str, threshold: float, count: int
) -> tuple[list[int], dict[str, Any]]:
    """Chooses the images to show.

    On half of the images, the numbers of detected faces differ most between detectors; on the
    others, the best detector misses the most faces.

    Returns:
        Indices of the images, and for each detector the counts ``found`` and ``wrong``, (I,).
    """
    counts: dict[str, Any] = {}
    for name, one in measured.items():
        matches, truth = one.result.matches, one.result.ground_truth
        proposal, hit = matches.outcome(truth.kept[setting])
        taken = matches.scores >= threshold
        counts[name] = {
            "found": np.bincount(matches.image[taken & hit], minlength=len(truth)),
            "wrong": np.bincount(matches.image[taken & proposal & ~hit], minlength=len(truth)),
        }
    found = np.stack([one["found"] for one in counts.values()])
    truth = next(iter(measured.values())).result.ground_truth
    faces = np.bincount(truth.image_of_face()[truth.kept[setting]], minlength=len(truth))
    differ = np.argsort(-(found.max(axis=0) - found.min(axis=0)), kind="stable")
    missed = np.argsort(-(faces - found.max(axis=0)), kind="stable")
    chosen: list[int] = differ[: (count + 1) // 2].tolist()
    chosen += [i for i in missed.tolist() if i not in set(chosen)][: count - len(chosen)]
    return chosen, {**counts, "faces": faces}


def describe_pictures(
    images: ImageSet,
    detections: Mapping[str, Mapping[str, Detections]],
    measured: Mapping[str, Measured],
    setting: str,
    threshold: float,
    count: int,
    linked_from: Path | None = None,
) -> list[dict[str, Any]]:
    """The chosen images with their boxes, as data for the page.

    Args:
        images: all images.
        detections: detector -> image -> detections.
        measured, setting, threshold, count: see :func:`choose_pictures`.
        linked_from: folder of the page, for links to the images; None embeds thumbnails.

    Returns:
        For each image ``name``, ``src``, ``width``, ``height``, ``faces`` (boxes XYWH and whether
        they count), and per detector ``boxes`` (x, y, w, h, score), ``found`` and ``wrong``.
    """
    chosen, counts = choose_pictures(measured, setting, threshold, count)
    truth = images.ground_truth
    described = []
    for index in chosen:
        name = truth.names[index]
        picture = read_image(images.files[name])
        own = truth.faces_of(index)
        kept = truth.kept[setting][own]
        faces = [
            [*(round(float(side), 1) for side in box), int(counted)]
            for box, counted in zip(truth.boxes[own], kept)
            if box[2] > 0 and box[3] > 0
        ]
        described.append(
            {
                "name": name,
                "src": _source(images.files[name], picture, linked_from),
                "width": picture.shape[1],
                "height": picture.shape[0],
                "faces": faces,
                "count": int(counts["faces"][index]),
                "detectors": {
                    detector: {
                        "boxes": _boxes(found[name]),
                        "found": int(counts[detector]["found"][index]),
                        "wrong": int(counts[detector]["wrong"][index]),
                    }
                    for detector, found in detections.items()
                },
            }
        )
    return described


def _boxes(found: Detections) -> list[list[float]]:
    shown = np.flatnonzero(found.scores >= _MIN_SCORE)
    shown = shown[np.argsort(-found.scores[shown], kind="stable")][:_MAX_BOXES]
    corners, scores = found.boxes[shown], found.scores[shown]
    rows = np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).round(1)
    return [[*map(float, row), round(float(score), 3)] for row, score in zip(rows, scores)]


def _source(file: Path, picture: NDArray[np.uint8], linked_from: Path | None) -> str:
    if linked_from is not None:
        return Path(os.path.relpath(file, linked_from)).as_posix()
    scale = min(_SIDE / max(picture.shape[:2]), 1.0)
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
