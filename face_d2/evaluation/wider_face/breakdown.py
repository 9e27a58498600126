"""Details of a WIDER FACE result: breakdowns by kind of face, errors, intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from face_d2.data.wider_face import ATTRIBUTES
from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth
from face_d2.evaluation.wider_face.matching import (
    IOU_THRESHOLD,
    NUM_THRESHOLDS,
    Curve,
    Matches,
    average_precision,
    build_curve,
)

__all__ = [
    "FalsePositive",
    "Miss",
    "attribute_breakdown",
    "bootstrap_intervals",
    "draw_images",
    "height_breakdown",
    "height_classes",
    "percentile_interval",
    "resampled_aps",
    "top_false_positives",
    "top_misses",
]

#: Borders of the height classes in pixels, lower border exclusive. 10, 30 and 50 are those of Easy,
#: Medium and Hard; 50 and 300 are those of the benchmark's small, medium and large faces.
HEIGHT_BORDERS = (0, 15, 20, 30, 50, 100, 200, 300, np.inf)

_VALUE_NAMES = {
    "blur": ("clear", "normal", "heavy"),
    "expression": ("typical", "exaggerated"),
    "illumination": ("normal", "extreme"),
    "occlusion": ("none", "partial", "heavy"),
    "pose": ("typical", "atypical"),
}
#: Below this IoU, a false positive is background; above, it is a badly placed box.
_LOCALISATION_IOU = 0.1


@dataclass(frozen=True)
class FalsePositive:
    """A false positive.

    Attributes:
        image: ``event/name``.
        box: XYWH in pixels.
        score: the predicted score.
        kind: "background" (IoU < 0.1 with every face), "localisation" (below 0.5) or "duplicate" (a
            face found by a detection of higher score).
        iou: IoU with its best face.
    """

    image: str
    box: tuple[float, float, float, float]
    score: float
    kind: str
    iou: float


@dataclass(frozen=True)
class Miss:
    """A face that counts and is not detected at any score.

    Attributes:
        image: ``event/name``.
        box: XYWH in pixels.
        attributes: name -> value in words; empty if the ground truth has none.
    """

    image: str
    box: tuple[float, float, float, float]
    attributes: dict[str, str]


def height_breakdown(
    matches: Matches, ground_truth: WiderFaceGroundTruth, setting: str
) -> dict[str, Curve]:
    """The curve of each class of face height, for the faces of a setting such as "hard".

    In each class, only its own faces count, and all others are ignored. False positives on the
    background count in every class, so a class of few faces has a lower AP at the same recall.

    Returns:
        Class -> curve, e.g. "15-20" -> curve; classes without faces are left out.
    """
    kept = ground_truth.kept[setting]
    classes = height_classes(ground_truth.boxes[:, 3])
    masks = {label: kept & members for label, members in classes}
    return _curves(matches, ground_truth, masks)


def height_classes(
    heights: NDArray[np.floating],
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Label and (F,) members of every height class; ``heights`` (F,) in pixels."""
    for low, high in pairwise(HEIGHT_BORDERS):
        label = f"{low:g}-{high:g}" if np.isfinite(high) else f">{low:g}"
        yield label, (heights > low) & (heights <= high)


def attribute_breakdown(
    matches: Matches, ground_truth: WiderFaceGroundTruth, setting: str
) -> dict[str, dict[str, Curve]]:
    """The curve of each value of blur, expression, illumination, occlusion and pose.

    :func:`height_breakdown` explains how classes share false positives.

    Returns:
        attribute -> value in words -> curve, without values that no face has; empty if the ground
        truth has no attributes.
    """
    if ground_truth.attributes is None:
        return {}
    kept = ground_truth.kept[setting]
    table: dict[str, dict[str, Curve]] = {}
    for attribute, values in _VALUE_NAMES.items():
        column = ground_truth.attributes[:, ATTRIBUTES.index(attribute)]
        masks = {value: kept & (column == code) for code, value in enumerate(values)}
        table[attribute] = _curves(matches, ground_truth, masks)
    return table


def _curves(
    matches: Matches, ground_truth: WiderFaceGroundTruth, masks: dict[str, NDArray[np.bool_]]
) -> dict[str, Curve]:
    """The curve of each class with faces; ``masks`` selects the faces of the classes."""
    return {
        label: build_curve(matches, ground_truth, mask)
        for label, mask in masks.items()
        if mask.any()
    }


def top_false_positives(
    matches: Matches, ground_truth: WiderFaceGroundTruth, setting: str, limit: int
) -> list[FalsePositive]:
    """The ``limit`` false positives with the highest scores, highest first."""
    proposal, hit = matches.outcome(ground_truth.kept[setting])
    wrong = np.flatnonzero(proposal & ~hit)
    worst = wrong[np.argsort(-matches.scores[wrong], kind="stable")[:limit]]
    return [
        FalsePositive(
            image=ground_truth.names[matches.image[index]],
            box=_box(matches.boxes[index]),
            score=float(matches.scores[index]),
            kind=_kind(float(matches.iou[index])),
            iou=float(matches.iou[index]),
        )
        for index in worst
    ]


def top_misses(
    matches: Matches, ground_truth: WiderFaceGroundTruth, setting: str, limit: int
) -> list[Miss]:
    """The ``limit`` tallest faces that are not detected, tallest first."""
    missed = np.flatnonzero(ground_truth.kept[setting] & (matches.finder < 0))
    tallest = missed[np.argsort(-ground_truth.boxes[missed, 3], kind="stable")[:limit]]
    image = ground_truth.image_of_face()
    return [
        Miss(
            image=ground_truth.names[image[face]],
            box=_box(ground_truth.boxes[face]),
            attributes=_attributes_in_words(ground_truth, face),
        )
        for face in tallest
    ]


def bootstrap_intervals(
    matches: Matches,
    ground_truth: WiderFaceGroundTruth,
    samples: int,
    seed: int,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the APs of :func:`resampled_aps`.

    Returns:
        setting -> (low, high) in 0-1, which contain the fraction ``level`` of the resampled APs;
        NaN if no resample has a face that counts.
    """
    return {
        setting: percentile_interval(aps, level)
        for setting, aps in resampled_aps(matches, ground_truth, samples, seed).items()
    }


def percentile_interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """The interval (low, high) that contains the fraction ``level`` of resampled values.

    NaNs are left out; if there is nothing else, both ends are NaN.
    """
    values = values[~np.isnan(values)]
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(values, tails) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


def draw_images(num_images: int, samples: int, seed: int) -> NDArray[np.float64]:
    """(B, I) number of times each image is in each of B resamples, drawn with replacement."""
    generator = np.random.default_rng(seed)
    shares = np.full(num_images, 1 / num_images)
    return generator.multinomial(num_images, shares, size=samples).astype(np.float64)


def resampled_aps(
    matches: Matches, ground_truth: WiderFaceGroundTruth, samples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """The APs over resampled images.

    Images are drawn with replacement; scores are normalized over the whole set. With the same
    images, ``samples`` and ``seed``, the resamples are the same for every detector, so that
    differences between the APs of two detectors are those of a paired bootstrap.

    Returns:
        setting -> (B,) in 0-1; NaN in a resample without a face that counts.
    """
    num_images = len(ground_truth)
    weights = draw_images(num_images, samples, seed)
    image_of_face = ground_truth.image_of_face()
    resampled = {}
    for setting, kept in ground_truth.kept.items():
        proposal, hit = matches.outcome(kept)
        proposals = weights @ _counts_by_image(matches, proposal, num_images)  # (B, 1000)
        recalled = weights @ _counts_by_image(matches, hit, num_images)  # (B, 1000)
        faces = weights @ np.bincount(image_of_face[kept], minlength=num_images)  # (B,)
        drawn = faces > 0
        precision = recalled / np.maximum(proposals, 1)
        aps = np.full(samples, np.nan)
        aps[drawn] = average_precision(precision[drawn], recalled[drawn] / faces[drawn, None])
        resampled[setting] = aps
    return resampled


def _counts_by_image(
    matches: Matches, chosen: NDArray[np.bool_], num_images: int
) -> NDArray[np.float64]:
    """(I, 1000) number of chosen detections of each image at or above each threshold."""
    cells = matches.image[chosen] * NUM_THRESHOLDS + matches.bins[chosen]
    counts = np.bincount(cells, minlength=num_images * NUM_THRESHOLDS)
    return counts.reshape(num_images, NUM_THRESHOLDS).cumsum(axis=1).astype(np.float64)


def _kind(iou: float) -> str:
    if iou >= IOU_THRESHOLD:
        return "duplicate"
    return "localisation" if iou >= _LOCALISATION_IOU else "background"


def _box(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x, y, w, h = (float(value) for value in box)
    return x, y, w, h


def _attributes_in_words(ground_truth: WiderFaceGroundTruth, face: int) -> dict[str, str]:
    if ground_truth.attributes is None:
        return {}
    codes = dict(zip(ATTRIBUTES, ground_truth.attributes[face].tolist()))
    return {
        attribute: values[codes[attribute]] if codes[attribute] < len(values) else "unknown"
        for attribute, values in _VALUE_NAMES.items()
    }
