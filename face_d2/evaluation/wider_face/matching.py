"""Matching, curves and AP by the WIDER FACE rules, with NumPy only.

A detection is matched to the face with the highest IoU, independent of the other detections.
Therefore one IoU matrix per image and histograms of scores are enough, and the order of rows does
not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth

__all__ = ["Curve", "Matches", "average_precision", "build_curve", "match"]

NUM_THRESHOLDS = 1000
_THRESHOLDS = 1 - np.arange(1, NUM_THRESHOLDS + 1) / NUM_THRESHOLDS
IOU_THRESHOLD = 0.5
#: Number of detections whose IoUs are computed at a time, which limits the memory.
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Matches:
    """All detections of a set (D) and the face to which each is matched.

    Attributes:
        image: (D,) index of the image in the ground truth.
        boxes: (D, 4) XYWH as predicted.
        scores: (D,) as predicted.
        score_range: minimum and maximum score of the set, which normalize the scores.
        bins: (D,) int64, first of the 1,000 descending thresholds that the normalized score
            reaches.
        face: (D,) index of the face with the highest IoU.
        iou: (D,) this IoU.
        finder: (F,) index of the detection that detects each face, -1 if there is none.
    """

    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    score_range: tuple[float, float]
    bins: NDArray[np.int64]
    face: NDArray[np.int64]
    iou: NDArray[np.float64]
    finder: NDArray[np.int64]

    def outcome(self, kept: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Selects the detections that are counted, and those of them that detect a face.

        Args:
            kept: (F,) the faces that count.

        Returns:
            (D,) proposal: not removed by an ignored face; (D,) hit: detects a face that counts.
        """
        matched = self.iou >= IOU_THRESHOLD
        counts = kept[self.face] if len(kept) else np.zeros(0, dtype=bool)
        hit = np.zeros(len(matched), dtype=bool)
        finders = self.finder[kept]
        hit[finders[finders >= 0]] = True
        return ~matched | counts, hit


@dataclass(frozen=True, eq=False)
class Curve:
    """Counts at the 1,000 thresholds, in descending order.

    Attributes:
        proposals: (1000,) number of detections at or above the threshold that were not removed.
        recalled: (1000,) number of faces that they detect.
        faces: number of faces that count.
        images: number of images.
        thresholds: (1000,) in units of the detector's scores.
    """

    proposals: NDArray[np.int64]
    recalled: NDArray[np.int64]
    faces: int
    images: int
    thresholds: NDArray[np.float64]

    @property
    def precision(self) -> NDArray[np.float64]:
        """(1000,); 0 if there is no detection."""
        return self.recalled / np.maximum(self.proposals, 1)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(1000,); NaN if no face counts."""
        return self.recalled / self.faces if self.faces else np.full(len(self.recalled), np.nan)

    @property
    def false_positives_per_image(self) -> NDArray[np.float64]:
        """(1000,), the horizontal axis of the recall curve."""
        return (self.proposals - self.recalled) / self.images

    @property
    def ap(self) -> float:
        """Average precision in 0-1; NaN if no face counts."""
        return float(average_precision(self.precision, self.recall))


def match(detections: list[NDArray[np.float64]], ground_truth: WiderFaceGroundTruth) -> Matches:
    """Normalizes the scores and matches every detection to a face.

    ``detections`` has (N, 5) x, y, w, h, score for each image of the ground truth.
    """
    rows = np.concatenate(detections)
    image = np.repeat(np.arange(len(detections)), [len(image_rows) for image_rows in detections])
    scores = rows[:, 4]
    low, high = (float(scores.min()), float(scores.max())) if len(rows) else (0.0, 0.0)
    # As in the official tool, an image without a row of ground truth is skipped. In the official
    # files, an image without faces has a dummy face.
    counted = np.diff(ground_truth.starts)[image] > 0
    face, iou = _best_faces(detections, ground_truth)
    rows, image = rows[counted], image[counted]
    return Matches(
        image=image,
        boxes=rows[:, :4],
        scores=rows[:, 4],
        score_range=(low, high),
        bins=_bins(rows[:, 4], low, high),
        face=face,
        iou=iou,
        finder=_finders(rows[:, 4], face, iou, len(ground_truth.boxes)),
    )


def build_curve(
    matches: Matches, ground_truth: WiderFaceGroundTruth, kept: NDArray[np.bool_]
) -> Curve:
    """The curve if the faces in ``kept`` (F,) count; all other faces are ignored."""
    proposal, hit = matches.outcome(kept)
    low, high = matches.score_range
    return Curve(
        proposals=_cumulative(matches.bins[proposal]),
        recalled=_cumulative(matches.bins[hit]),
        faces=int(kept.sum()),
        images=len(ground_truth),
        thresholds=low + _THRESHOLDS * (high - low),
    )


def average_precision(precision: ArrayLike, recall: ArrayLike) -> NDArray[np.float64]:
    """Area under the monotone envelope of precision-recall curves (PASCAL VOC 2010).

    Args:
        precision: (..., T) in 0-1.
        recall: (..., T) in 0-1, ascending. NaN gives NaN.

    Returns:
        (...), in 0-1. The precision above the last recall is 0.
    """
    envelope = np.maximum.accumulate(np.asarray(precision)[..., ::-1], axis=-1)[..., ::-1]
    return (np.diff(recall, axis=-1, prepend=0.0) * envelope).sum(axis=-1)


def _best_faces(
    detections: list[NDArray[np.float64]], ground_truth: WiderFaceGroundTruth
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(D,) face with the highest IoU and (D,) this IoU, for all images that have a face."""
    faces = _corners(ground_truth.boxes)
    best, overlap = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for index, rows in enumerate(detections):
        own = ground_truth.faces_of(index)
        if own.start == own.stop:
            continue
        boxes = _corners(rows[:, :4])
        for start in range(0, len(boxes), _CHUNK):
            iou = _iou(boxes[start : start + _CHUNK], faces[own])
            column = iou.argmax(axis=1)
            best.append(column + own.start)
            overlap.append(iou[np.arange(len(iou)), column])
    return np.concatenate(best), np.concatenate(overlap)


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """XYWH to XYXY as in the official tool: x + w, without subtracting a pixel."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M) IoU of XYXY boxes with the +1 convention."""
    width = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0]) + 1
    height = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1]) + 1
    intersection = width.clip(min=0) * height.clip(min=0)
    area_a = (a[:, 2] - a[:, 0] + 1) * (a[:, 3] - a[:, 1] + 1)
    area_b = (b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1)
    union = area_a[:, None] + area_b[None, :] - intersection
    # Annotated sizes can be negative, and then the union of boxes without overlap is undefined.
    return np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)


def _bins(scores: NDArray[np.float64], low: float, high: float) -> NDArray[np.int64]:
    # If all scores are equal, the official tool divides by zero.
    stretched = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    return np.searchsorted(-_THRESHOLDS, -stretched, side="left")


def _cumulative(bins: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(bins, minlength=NUM_THRESHOLDS).cumsum()


def _finders(
    scores: NDArray[np.float64], face: NDArray[np.int64], iou: NDArray[np.float64], num_faces: int
) -> NDArray[np.int64]:
    """(F,) the matched detection of each face with the highest score (first row on ties), or -1."""
    candidates = np.flatnonzero(iou >= IOU_THRESHOLD)
    descending = candidates[np.argsort(-scores[candidates], kind="stable")]
    finder = np.full(num_faces, -1)
    finder[face[descending[::-1]]] = descending[::-1]  # the last assignment has the best score
    return finder
