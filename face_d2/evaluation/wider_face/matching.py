"""Detections against faces by the WIDER FACE rules: matching, curves, AP. NumPy only.

A detection looks at the one face it overlaps most, whatever the other detections do, so everything
below is one IoU matrix per image and histograms of scores; no order of rows plays a part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth

__all__ = ["Curve", "Matches", "average_precision", "build_curve", "match"]

NUM_THRESHOLDS = 1000
IOU_THRESHOLD = 0.5
#: Detections whose overlaps with an image's faces are computed at a time (bounds the memory).
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Matches:
    """All detections of a set (D) and the face each of them looks at.

    Attributes:
        image: (D,) index of the image in the ground truth.
        boxes: (D, 4) XYWH as predicted.
        scores: (D,) as predicted.
        score_range: lowest and highest score of the set, over which scores are stretched.
        bins: (D,) int64, first of the 1,000 descending thresholds that the stretched score reaches.
        face: (D,) index of the face overlapped most.
        iou: (D,) that overlap.
        finder: (F,) index of the detection that finds each face, -1 where none does.
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
        """Which detections stay in the list, and which of them find a face.

        Args:
            kept: (F,) the faces that count.

        Returns:
            (D,) proposal: not taken out by an ignored face; (D,) hit: finds a face that counts.
        """
        matched = self.iou >= IOU_THRESHOLD
        counts = kept[self.face] if len(kept) else np.zeros(0, dtype=bool)
        hit = np.zeros(len(matched), dtype=bool)
        finders = self.finder[kept]
        hit[finders[finders >= 0]] = True
        return ~matched | counts, hit


@dataclass(frozen=True, eq=False)
class Curve:
    """Counts at the 1,000 thresholds, from the strictest to the loosest.

    Attributes:
        proposals: (1000,) detections at or above the threshold that were not taken out.
        recalled: (1000,) faces they find.
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
        """(1000,), 0 where nothing is proposed."""
        return self.recalled / np.maximum(self.proposals, 1)

    @property
    def recall(self) -> NDArray[np.float64]:
        """(1000,), NaN when no face counts."""
        return self.recalled / self.faces if self.faces else np.full(len(self.recalled), np.nan)

    @property
    def false_positives_per_image(self) -> NDArray[np.float64]:
        """(1000,), abscissa of the recall curve."""
        return (self.proposals - self.recalled) / self.images

    @property
    def ap(self) -> float:
        """Average precision in 0-1, NaN when no face counts."""
        return float(average_precision(self.precision, self.recall))


def match(detections: list[NDArray[np.float64]], ground_truth: WiderFaceGroundTruth) -> Matches:
    """Stretches the scores and finds every detection's face.

    Args:
        detections: for each of the ground truth's images, (N, 5) x, y, w, h, score.
        ground_truth: the faces.
    """
    rows = np.concatenate(detections)
    image = np.repeat(np.arange(len(detections)), [len(image_rows) for image_rows in detections])
    scores = rows[:, 4]
    low, high = (float(scores.min()), float(scores.max())) if len(rows) else (0.0, 0.0)
    # An image without a row of ground truth is skipped, as officially; every image of the official
    # files has one, if only the dummy face of a face-free image.
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
    """The curve of one choice of faces that count; all other faces are ignored.

    Args:
        matches: of all detections.
        ground_truth: the faces (F).
        kept: (F,) the faces that count.
    """
    proposal, hit = matches.outcome(kept)
    low, high = matches.score_range
    return Curve(
        proposals=_cumulative(matches.bins[proposal]),
        recalled=_cumulative(matches.bins[hit]),
        faces=int(kept.sum()),
        images=len(ground_truth),
        thresholds=low + _thresholds() * (high - low),
    )


def average_precision(precision: ArrayLike, recall: ArrayLike) -> NDArray[np.float64]:
    """Area under the monotone envelope of precision-recall curves (PASCAL VOC 2010).

    Args:
        precision: (..., T) in 0-1.
        recall: (..., T) in 0-1, ascending. NaN gives NaN.

    Returns:
        (...), in 0-1. Beyond the last recall the precision is 0.
    """
    envelope = np.maximum.accumulate(np.asarray(precision)[..., ::-1], axis=-1)[..., ::-1]
    return (np.diff(recall, axis=-1, prepend=0.0) * envelope).sum(axis=-1)


def _best_faces(
    detections: list[NDArray[np.float64]], ground_truth: WiderFaceGroundTruth
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(D,) face overlapped most and (D,) the overlap, over all images that have a face."""
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
    """XYWH to XYXY as the tool does it: x + w, without subtracting a pixel."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M) IoU of XYXY boxes with the +1 convention."""
    width = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0]) + 1
    height = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1]) + 1
    intersection = width.clip(min=0) * height.clip(min=0)
    area_a = (a[:, 2] - a[:, 0] + 1) * (a[:, 3] - a[:, 1] + 1)
    area_b = (b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1)
    union = area_a[:, None] + area_b[None, :] - intersection
    # Annotated sizes may be negative, which makes the union meaningless where nothing overlaps.
    return np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)


def _bins(scores: NDArray[np.float64], low: float, high: float) -> NDArray[np.int64]:
    # Where all scores are equal, the official tool divides by zero.
    stretched = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    return np.searchsorted(-_thresholds(), -stretched, side="left")


def _thresholds() -> NDArray[np.float64]:
    return 1 - np.arange(1, NUM_THRESHOLDS + 1) / NUM_THRESHOLDS


def _cumulative(bins: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(bins, minlength=NUM_THRESHOLDS).cumsum()


def _finders(
    scores: NDArray[np.float64],
    face: NDArray[np.int64],
    iou: NDArray[np.float64],
    num_faces: int,
) -> NDArray[np.int64]:
    """(F,) the detection of highest score (first row on ties) that looks at each face, or -1."""
    candidates = np.flatnonzero(iou >= IOU_THRESHOLD)
    descending = candidates[np.argsort(-scores[candidates], kind="stable")]
    finder = np.full(num_faces, -1)
    finder[face[descending[::-1]]] = descending[::-1]  # the last assignment, the best score, stays
    return finder
