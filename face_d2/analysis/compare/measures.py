"""Measures of one detector on one set of images, and of the difference between two.

All measures use the official matching: a detection is matched to the face with the highest IoU, and
detections on ignored faces are removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_d2.data.wider_face import ATTRIBUTES
from face_d2.detectors import Detections
from face_d2.evaluation.wider_face.breakdown import percentile_interval, resampled_aps
from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth
from face_d2.evaluation.wider_face.matching import IOU_THRESHOLD, Curve
from face_d2.evaluation.wider_face.protocol import WiderFaceResult, widerface_ap
from face_d2.evaluation.wider_face.report import curve_figures, final_recall

__all__ = [
    "MeasureSettings",
    "Measured",
    "calibration",
    "differences",
    "error_types",
    "measure",
    "operating_point",
    "reach",
]

#: Reasons for a missed face, in order: column of the attributes, minimum value.
_MISS_REASONS = (
    ("occluded", "occlusion", 1),
    ("blurred", "blur", 2),
    ("odd pose", "pose", 1),
    ("extreme light", "illumination", 1),
)
_SMALL = 20.0
_BACKGROUND_IOU = 0.1
_BINS = 10
_CURVE_POINTS = 200


@dataclass(frozen=True)
class MeasureSettings:
    """Settings of the measures.

    Attributes:
        setting: the faces for operating points and errors, "easy", "medium" or "hard".
        threshold: score threshold in use.
        recall: the recall for which a threshold is computed, in 0-1.
        false_positives: the number of false positives per image for which a threshold is computed.
        bootstrap: number of resamples of the images for intervals and differences.
        seed: seed of the resampling.
    """

    setting: str = "hard"
    threshold: float = 0.5
    recall: float = 0.8
    false_positives: float = 0.1
    bootstrap: int = 1000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Measured:
    """One detector on one set of images.

    Attributes:
        result: the result of the official protocol.
        resampled: setting -> (B,) APs in 0-1 over resampled images, the same images for every
            detector.
        metrics: all metrics, ready for JSON, APs in 0-100.
    """

    result: WiderFaceResult
    resampled: Mapping[str, NDArray[np.float64]]
    metrics: dict[str, Any] = field(default_factory=dict)


def measure(
    detections: Mapping[str, Detections],
    ground_truth: WiderFaceGroundTruth,
    settings: MeasureSettings,
) -> Measured:
    """Evaluates detections by the official protocol, with details.

    ``detections`` is ``event/name`` -> boxes XYXY and scores, for every image.
    """
    rows = {
        name: np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], scores])
        for name, (boxes, scores) in detections.items()
    }
    result = widerface_ap(rows, ground_truth)
    resampled = {}
    if settings.bootstrap:
        resampled = resampled_aps(result.matches, ground_truth, settings.bootstrap, settings.seed)
    metrics: dict[str, Any] = {key: 100 * value for key, value in result.items()}
    metrics["interval_95"] = {key: _interval(100 * aps) for key, aps in resampled.items()}
    metrics["recall"] = {key: final_recall(curve) for key, curve in result.curves.items()}
    metrics["faces"] = {key: curve.faces for key, curve in result.curves.items()}
    metrics["detections"] = len(result.matches.scores)
    groups = {
        "height, px": result.by_height(settings.setting),
        **result.by_attribute(settings.setting),
    }
    metrics["slices"] = {group: curve_figures(curves) for group, curves in groups.items()}
    metrics["at_threshold"] = operating_point(result, settings.setting, settings.threshold)
    metrics["for_recall"] = {
        "recall": settings.recall,
        **reach(result, settings.setting, recall=settings.recall),
    }
    metrics["for_false_positives"] = {
        "false_positives_per_image": settings.false_positives,
        **reach(result, settings.setting, false_positives=settings.false_positives),
    }
    metrics["errors"] = error_types(result, settings.setting, settings.threshold)
    metrics["calibration"] = calibration(result, settings.setting)
    metrics["curves"] = {key: _points(curve) for key, curve in result.curves.items()}
    return Measured(result, resampled, metrics)


def operating_point(result: WiderFaceResult, setting: str, threshold: float) -> dict[str, Any]:
    """Precision, recall and false positives per image of detections with at least this score."""
    matches = result.matches
    proposal, hit = matches.outcome(result.ground_truth.kept[setting])
    taken = matches.scores >= threshold
    right, given = int((hit & taken).sum()), int((proposal & taken).sum())
    faces = int(result.ground_truth.kept[setting].sum())
    return {
        "threshold": threshold,
        "precision": right / given if given else None,
        "recall": right / faces if faces else None,
        "false_positives_per_image": (given - right) / len(result.ground_truth),
        "found": right,
        "faces": faces,
    }


def reach(
    result: WiderFaceResult,
    setting: str,
    *,
    recall: float | None = None,
    false_positives: float | None = None,
) -> dict[str, Any]:
    """The highest threshold with a required recall, in 0-1, or the lowest with an allowed number of
    false positives per image.

    The threshold is chosen on the images on which it is reported. Choose the threshold for use on
    other images.

    Returns:
        See :func:`operating_point`; ``threshold`` is None if no threshold meets the requirement.
    """
    matches = result.matches
    proposal, hit = matches.outcome(result.ground_truth.kept[setting])
    scores = matches.scores[proposal]
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], hit[proposal][order].cumsum()
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # last index of each score
    faces = int(result.ground_truth.kept[setting].sum())
    if recall is not None:
        chosen = last[right[last] >= recall * faces][:1]
    else:
        assert false_positives is not None
        wrong = last + 1 - right[last]
        chosen = last[wrong <= false_positives * len(result.ground_truth)][-1:]
    if not len(chosen) or not faces:
        return {"threshold": None, "precision": None, "recall": None}
    point = operating_point(result, setting, float(scores[chosen[0]]))
    key = "recall" if recall is not None else "false_positives_per_image"
    point[f"found_{key}"] = point.pop(key)
    return point


def error_types(result: WiderFaceResult, setting: str, threshold: float) -> dict[str, Any]:
    """Counts the errors of the detections with a score of at least a threshold.

    Returns:
        ``missed``: reason -> number of faces. Each face has the first reason that applies: badly
        placed box (the best IoU is between 0.1 and 0.5), less than 20 pixels high, occluded (partly
        or heavily), heavily blurred, atypical pose, extreme illumination, other. ``false``: kind ->
        number of detections: "background" (IoU below 0.1 with every face), "badly placed" (below
        0.5) and "duplicate". ``ignored``: number of detections on ignored faces.
    """
    matches, truth = result.matches, result.ground_truth
    kept = truth.kept[setting]
    proposal, hit = matches.outcome(kept)
    taken = matches.scores >= threshold
    found = np.zeros(len(kept), dtype=bool)
    has_finder = matches.finder >= 0
    found[has_finder] = taken[matches.finder[has_finder]]
    best = np.zeros(len(kept))
    np.maximum.at(best, matches.face[taken], matches.iou[taken])
    left = kept & ~found
    missed = {"badly placed": left & (best >= _BACKGROUND_IOU)}
    missed["small"] = truth.boxes[:, 3] < _SMALL
    if truth.attributes is not None:
        for reason, attribute, minimum in _MISS_REASONS:
            missed[reason] = truth.attributes[:, ATTRIBUTES.index(attribute)] >= minimum
    missed["other"] = np.ones(len(kept), dtype=bool)
    counts = {}
    for reason, holds in missed.items():
        counts[reason] = int((left & holds).sum())
        left = left & ~holds
    wrong = taken & proposal & ~hit
    background, duplicate = matches.iou < _BACKGROUND_IOU, matches.iou >= IOU_THRESHOLD
    return {
        "threshold": threshold,
        "missed": counts,
        "false": {
            "background": int((wrong & background).sum()),
            "badly placed": int((wrong & ~background & ~duplicate).sum()),
            "duplicate": int((wrong & duplicate).sum()),
        },
        "ignored": int((taken & ~proposal).sum()),
    }


def calibration(result: WiderFaceResult, setting: str) -> dict[str, Any]:
    """The fraction of correct detections for ranges of the score.

    Returns:
        ``bins``: for ten equal ranges of the score, the mean score, the fraction of correct
        detections, and their number. ``error``: the mean difference between the first two, weighted
        by number (expected calibration error), over all detections above the detector's own score
        threshold.
    """
    matches = result.matches
    proposal, hit = matches.outcome(result.ground_truth.kept[setting])
    scores, right = matches.scores[proposal], hit[proposal]
    index = np.clip((scores * _BINS).astype(int), 0, _BINS - 1)
    counts = np.bincount(index, minlength=_BINS)
    sums = np.bincount(index, weights=scores, minlength=_BINS)
    rights = np.bincount(index, weights=right, minlength=_BINS)
    filled = counts > 0
    mean, share = sums[filled] / counts[filled], rights[filled] / counts[filled]
    error = float((np.abs(mean - share) * counts[filled]).sum() / max(counts.sum(), 1))
    return {
        "error": error,
        "bins": [
            {"score": float(s), "right": float(r), "detections": int(n)}
            for s, r, n in zip(mean, share, counts[filled])
        ],
    }


def differences(measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """Differences in AP between every two detectors, with paired bootstrap intervals.

    Both detectors are evaluated on the same resamples of the same images. If a resample has many
    hard images, both APs are lower, and the difference changes little.

    Returns:
        For every pair and setting: ``first``, ``second``, ``setting``, ``difference`` of the APs
        (first minus second, in points of 0-100) and its ``interval_95``, which is missing without
        resamples.
    """
    rows = []
    for (first, one), (second, other) in combinations(measured.items(), 2):
        for setting in one.result.curves:
            aps = [100 * each.result.curves[setting].ap for each in (one, other)]
            row: dict[str, Any] = {
                "first": first,
                "second": second,
                "setting": setting,
                "difference": aps[0] - aps[1],
            }
            if one.resampled:
                gaps = 100 * (one.resampled[setting] - other.resampled[setting])
                row["interval_95"] = _interval(gaps)
            rows.append(row)
    return rows


def _interval(values: NDArray[np.float64]) -> list[float | None]:
    """The interval for JSON, which has no NaN."""
    return [None if np.isnan(end) else end for end in percentile_interval(values)]


def _points(curve: Curve) -> dict[str, list[float]]:
    """The curve, reduced to about as many points as a plot can show."""
    if not curve.faces:
        return {"recall": [], "precision": [], "false_positives_per_image": [], "threshold": []}
    keep = np.linspace(0, len(curve.recall) - 1, _CURVE_POINTS).round().astype(int)
    some = {
        "recall": curve.recall[keep],
        "precision": curve.precision[keep],
        "false_positives_per_image": curve.false_positives_per_image[keep],
        "threshold": curve.thresholds[keep],
    }
    return {key: [round(float(value), 5) for value in values] for key, values in some.items()}
