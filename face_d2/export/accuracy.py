"""AP of an exported detector, against ground truth or against the float model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_d2.data.wider_face import WiderFaceImage
from face_d2.evaluation.wider_face.ground_truth import (
    WiderFaceGroundTruth,
    ground_truth_from_images,
    read_ground_truth,
)
from face_d2.evaluation.wider_face.protocol import widerface_ap
from face_d2.predictor.api import FaceDetector
from face_d2.predictor.images import load_image

__all__ = [
    "average_precisions",
    "average_precisions_of",
    "check_images",
    "find_faces",
    "own_faces",
]

#: Score from which boxes of the float model count as faces.
_FACE_SCORE = 0.5


def check_images(images: Sequence[str | Path], ground_truth: str | Path | None) -> None:
    """Checks the inputs of :func:`face_d2.export.quantize.quantize` before the export starts.

    Raises:
        ValueError: there is no image, an image cannot be decoded, two images have the same event
            and name, or an image is not in the ground truth.
        OSError: an image cannot be opened, or the ground truth does not exist.
    """
    if not images:
        raise ValueError("there are no images; int8 needs images for its calibration")
    names = _image_names(images)
    if ground_truth is not None:
        named = set(read_ground_truth(ground_truth).names)
        for name, path in zip(names, images):
            if name not in named:
                raise ValueError(
                    "FOLDER must be the folder of EVENT folders that the ground truth names; "
                    f"{ground_truth} names {min(named)}, but not {name} ({path})"
                )
    for path in images:
        load_image(path)


def find_faces(
    detector: FaceDetector, images: Sequence[str | Path]
) -> dict[str, NDArray[np.float64]]:
    """Detections ``{"event/name": (N, 5) x, y, w, h, score}`` for the evaluators.

    Args:
        detector: a detector with a low score threshold.
        images: image files named ``event/name``.

    Raises:
        ValueError: two images have the same event and name.
        Exception: the error of an image that cannot be read.
    """
    predictions = {}
    for name, result in zip(_image_names(images), detector.stream(images)):
        if result.error is not None:
            raise result.error
        corners, sides = result.boxes[:, :2], result.boxes[:, 2:] - result.boxes[:, :2]
        predictions[name] = np.column_stack([corners, sides, result.scores]).astype(np.float64)
    return predictions


def _image_names(images: Sequence[str | Path]) -> list[str]:
    """``event/name`` of each image; duplicates are an error."""
    owners: dict[str, str | Path] = {}
    for path in images:
        name = f"{Path(path).parent.name}/{Path(path).stem}"
        if name in owners:
            raise ValueError(
                f"{owners[name]} and {path} share the name {name!r}; give them different names"
            )
        owners[name] = path
    return list(owners)


def own_faces(predictions: Mapping[str, NDArray[np.float64]]) -> WiderFaceGroundTruth:
    """Detections of :func:`find_faces` with a score of at least 0.5, as ground truth for the int8
    detector.

    Raises:
        ValueError: there are no such detections.
    """
    faces = []
    for name, rows in predictions.items():
        boxes = rows[rows[:, 4] >= _FACE_SCORE, :4]
        faces.append(WiderFaceImage(f"{name}.jpg", boxes, np.zeros((len(boxes), 6), np.int64)))
    if not sum(len(image.boxes) for image in faces):
        raise ValueError(
            "the float model finds no face in the images for int8, so the loss of AP cannot be "
            "measured; give images with faces"
        )
    return ground_truth_from_images(faces, "boxes of the float model")


def average_precisions(
    detector: FaceDetector,
    images: Sequence[str | Path],
    truth: WiderFaceGroundTruth | str | Path,
) -> dict[str, float]:
    """AP_easy, AP_medium and AP_hard of a detector on images, in percent; see :func:`find_faces`.

    ``truth`` may also be WIDER FACE's annotation text or ``.mat`` folder.
    """
    return average_precisions_of(find_faces(detector, images), truth)


def average_precisions_of(
    predictions: Mapping[str, NDArray[np.float64]], truth: WiderFaceGroundTruth | str | Path
) -> dict[str, float]:
    """AP_easy, AP_medium and AP_hard of detections; see :func:`average_precisions`."""
    found = widerface_ap(predictions, truth, images=list(predictions))
    return {name: 100 * value for name, value in found.items()}
