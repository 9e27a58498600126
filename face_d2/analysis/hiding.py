"""How many faces stay visible when the faces that a detector finds are hidden.

A picture is redacted as ``face-d2-predict --blur`` does it: every detection above a score threshold
is hidden, with the margin :data:`face_d2.predictor.drawing.REDACT_MARGIN` on each side. A face is
*visible* if less than a given share of its annotated box is covered by all hidden regions together.
All annotated faces of usable size count, however small, occluded or blurred, also those that the
WIDER FACE protocol ignores. A hidden region is *false* if its detection lies outside the annotated
faces: less than a quarter of its box is covered by their boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from face_d2.analysis.compare.data import ImageSet
from face_d2.analysis.compare.opening import DetectorChoice, open_detector
from face_d2.analysis.compare.run import run_detector
from face_d2.data.image_file import image_size
from face_d2.data.wider_face import ATTRIBUTES
from face_d2.detectors import Detections
from face_d2.evaluation.wider_face.breakdown import draw_images
from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth
from face_d2.predictor.drawing import REDACT_MARGIN, hidden_corners

__all__ = ["HidingSettings", "Redacted", "format_hiding", "measure_hiding", "redact_boxes"]

#: Face heights in pixels that are told apart.
_HEIGHTS = (0, 10, 20, 50, 100, 200, np.inf)
#: Faces of at least this height are a group of their own: smaller ones can hardly be recognized.
_RECOGNIZABLE = 20.0
#: A detection with a smaller share of its box on annotated faces is false.
_ON_FACES = 0.25


@dataclass(frozen=True)
class HidingSettings:
    """Settings of the measurement.

    Attributes:
        thresholds: detections that score more than this are hidden.
        covered: a face is visible if less than this share of its box is covered.
        other_covered: further shares, to show what the definition changes.
        bootstrap: number of resamples of the photographs for the 95 % intervals.
        seed: seed of the resampling.
    """

    thresholds: tuple[float, ...] = (0.5, 0.2, 0.1, 0.05)
    covered: float = 0.75
    other_covered: tuple[float, ...] = (0.5, 0.95)
    bootstrap: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Redacted:
    """One redacted picture.

    Attributes:
        covered: (F,) share of each face's box that is hidden, in 0-1.
        false: number of hidden detections that are false: less than a quarter of their box is on
            annotated faces.
        off_faces: share of the picture that is hidden and lies outside the annotated boxes, in 0-1.
    """

    covered: NDArray[np.float64]
    false: int
    off_faces: float


def redact_boxes(
    size: tuple[int, int],
    faces: NDArray[np.float64],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    thresholds: Sequence[float],
) -> list[Redacted]:
    """What hiding the detections above each of some thresholds covers.

    Args:
        size: (height, width) of the picture.
        faces: (F, 4) annotated XYWH boxes in pixels.
        boxes: (N, 4) XYXY detections.
        scores: (N,) their scores.
        thresholds: detections that score more are hidden.
    """
    corners = np.hstack([faces[:, :2], faces[:, :2] + faces[:, 2:]]).astype(np.float32)
    face_parts = hidden_corners(size, corners, 0)
    annotated, hidden = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    _fill(annotated, face_parts)
    false = _shares(annotated, hidden_corners(size, boxes, 0)) < _ON_FACES
    parts = hidden_corners(size, boxes)
    redacted, before = {}, np.inf
    for threshold in sorted(thresholds, reverse=True):
        _fill(hidden, parts[(scores > threshold) & (scores <= before)])
        off_faces = np.count_nonzero(hidden > annotated) / hidden.size
        number = int((false & (scores > threshold)).sum())
        redacted[threshold] = Redacted(_shares(hidden, face_parts), number, off_faces)
        before = threshold
    return [redacted[threshold] for threshold in thresholds]


def _fill(mask: NDArray[np.uint8], parts: NDArray[np.int64]) -> None:
    """Sets the pixels of some parts, (N, 4), to 1."""
    for x1, y1, x2, y2 in parts.tolist():
        mask[y1:y2, x1:x2] = 1


def _shares(mask: NDArray[np.uint8], parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) which share of each part is set in a mask."""
    sums = cv2.integral(mask)
    x1, y1, x2, y2 = parts.T
    inside = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    return inside / ((x2 - x1) * (y2 - y1))


def measure_hiding(
    detectors: Sequence[DetectorChoice],
    images: ImageSet,
    settings: HidingSettings,
    *,
    cache: str | Path,
    processes: int = 1,
    progress: bool = True,
) -> dict[str, Any]:
    """Measures the faces that stay visible, for each detector and threshold.

    See :func:`.run.run_detector` for ``cache`` and ``processes``; runs of ``face-d2-compare`` are
    used again.

    Returns:
        ``data``, ``photographs``, ``faces``, ``settings``, and ``detectors``: name -> ``protocol``
        and ``thresholds``, a list of ``threshold``, ``faces`` (group -> number of faces, share that
        stays visible with its interval, share of which nothing is covered), ``other_covered``
        (share -> visible), ``false_boxes`` per photograph and ``off_faces``, the share of the
        pictures' area that is hidden outside faces.

    Raises:
        ValueError: there is no detector or face, two detectors have the same name, or a threshold
            is below a detector's own.
    """
    if len({choice.name for choice in detectors}) != len(detectors) or not detectors:
        raise ValueError("name at least one detector, and no name twice")
    truth = images.ground_truth
    usable = _usable(truth)
    if not usable.any():
        raise ValueError(f"{images.name}: no annotated face")
    sizes = {name: image_size(images.files[name]) for name in truth.names}
    weights = draw_images(len(truth), settings.bootstrap, settings.seed)
    measured: dict[str, Any] = {}
    for choice in detectors:
        detector = open_detector(choice, 1)
        _check_thresholds(choice.name, detector.protocol, settings.thresholds)
        found = run_detector(choice, images, cache, processes=processes, progress=progress)
        redacted = tqdm(
            _redacted(truth, usable, sizes, found, settings.thresholds),
            f"{choice.name}, hiding",
            len(truth),
            unit="image",
            disable=not progress,
        )
        measured[choice.name] = {
            "protocol": detector.protocol,
            "thresholds": [
                _at_threshold(truth, usable, threshold, one, settings, weights)
                for threshold, one in zip(settings.thresholds, zip(*redacted))
            ],
        }
    return {
        "data": images.name,
        "photographs": len(truth),
        "faces": int(usable.sum()),
        "ground_truth": truth.source,
        "settings": {**asdict(settings), "margin": REDACT_MARGIN, "on_faces": _ON_FACES},
        "detectors": measured,
    }


def _redacted(
    truth: WiderFaceGroundTruth,
    usable: NDArray[np.bool_],
    sizes: Mapping[str, tuple[int, int]],
    found: Mapping[str, Detections],
    thresholds: Sequence[float],
) -> Iterator[list[Redacted]]:
    """Each photograph, redacted at every threshold."""
    for index, name in enumerate(truth.names):
        own = truth.faces_of(index)
        faces = truth.boxes[own][usable[own]]
        yield redact_boxes(sizes[name], faces, *found[name], thresholds)


def _at_threshold(
    truth: WiderFaceGroundTruth,
    usable: NDArray[np.bool_],
    threshold: float,
    redacted: Sequence[Redacted],
    settings: HidingSettings,
    weights: NDArray[np.float64],
) -> dict[str, Any]:
    covered = np.concatenate([one.covered for one in redacted])
    photograph = truth.image_of_face()[usable]
    heights = truth.boxes[usable, 3]
    recognizable = heights >= _RECOGNIZABLE
    groups = {"all": np.ones(len(heights), bool), f">= {_RECOGNIZABLE:g} px": recognizable}
    for low, high in pairwise(_HEIGHTS):
        label = f">= {low:g} px" if high == np.inf else f"{low:g}-{high:g} px"
        groups[label] = (heights >= low) & (heights < high)

    def visible(group: NDArray[np.bool_], share: float) -> dict[str, Any]:
        seen = covered < share
        counts = [
            np.bincount(photograph[group & chosen], minlength=len(truth))
            for chosen in (seen, np.ones_like(seen))
        ]
        return _ratio(*counts, weights)

    false = np.array([one.false for one in redacted])
    ones = np.ones(len(truth))
    return {
        "threshold": threshold,
        "faces": {
            label: {
                **visible(group, settings.covered),
                "untouched": float((covered[group] == 0).mean()) if group.any() else None,
            }
            for label, group in groups.items()
        },
        "other_covered": {
            f"{share:g}": {label: visible(groups[label], share) for label in list(groups)[:2]}
            for share in settings.other_covered
        },
        "false_boxes": _ratio(false, ones, weights),
        "off_faces": float(np.mean([one.off_faces for one in redacted])),
    }


def _ratio(counts: NDArray[Any], of: NDArray[Any], weights: NDArray[np.float64]) -> dict[str, Any]:
    """The share of two sums over photographs, with its interval over resampled photographs."""
    total = float(of.sum())
    result: dict[str, Any] = {
        "share": float(counts.sum()) / total if total else None,
        "number": int(counts.sum()),
        "of": int(total),
    }
    if len(weights) and total:
        drawn = weights @ of
        shares = (weights @ counts)[drawn > 0] / drawn[drawn > 0]
        result["interval_95"] = np.quantile(shares, [0.025, 0.975]).tolist()
    return result


def _usable(truth: WiderFaceGroundTruth) -> NDArray[np.bool_]:
    """(F,) faces with an area that are not marked as invalid."""
    usable = (truth.boxes[:, 2:] > 0).all(axis=1)
    if truth.attributes is not None:
        usable &= truth.attributes[:, ATTRIBUTES.index("invalid")] == 0
    return usable


def _check_thresholds(name: str, protocol: Mapping[str, str], thresholds: Sequence[float]) -> None:
    """Refuses a threshold below that with which the detector was run: boxes would be missing."""
    own = protocol.get("score threshold", "").lstrip("> ")
    try:
        lowest = float(own)
    except ValueError:  # recorded detections do not say
        return
    if min(thresholds) < lowest:
        raise ValueError(
            f"{name} reports scores above {lowest:g} only; leave out the threshold "
            f"{min(thresholds):g}, or give {name}?score=... a lower one"
        )


def format_hiding(results: Mapping[str, Any]) -> str:
    """The figures as tables in Markdown."""
    settings = results["settings"]
    detectors = results["detectors"]
    parts = [
        f"{results['photographs']} photographs of {results['data']}, {results['faces']} faces. A "
        f"face is visible if less than {100 * settings['covered']:.0f} % of its box is covered.",
    ]
    points = [
        ([name, f"{point['threshold']:g}"], point)
        for name, one in detectors.items()
        for point in one["thresholds"]
    ]
    headers = ["detector", "score above", "all faces visible, %", "faces >= 20 px visible, %"]
    headers += ["false boxes a photograph", "area hidden off faces, %"]
    rows = []
    for start, point in points:
        faces = [_with_interval(one, 100, ".1f") for one in list(point["faces"].values())[:2]]
        false_boxes = _with_interval(point["false_boxes"], 1, ".2f")
        rows.append([*start, *faces, false_boxes, f"{100 * point['off_faces']:.1f}"])
    parts.append(_table(rows, headers))
    parts.append("Faces that stay visible by their height, %:")
    groups = points[0][1]["faces"]
    labels = list(groups)[2:]
    headers = ["detector", "score above", *(f"{label} ({groups[label]['of']})" for label in labels)]
    rows = [
        [*start, *(_percent(point["faces"][label]["share"]) for label in labels)]
        for start, point in points
    ]
    parts.append(_table(rows, headers))
    parts.append("Faces of 20 pixels and more that stay visible by other definitions, %:")
    shares = [f"{share:g}" for share in settings["other_covered"]]
    headers = ["detector", "score above", "nothing covered"]
    headers += [f"less than {100 * float(share):.0f} % covered" for share in shares]
    recognizable = list(groups)[1]
    rows = []
    for start, point in points:
        visible = [point["faces"][recognizable]["untouched"]]
        visible += [point["other_covered"][share][recognizable]["share"] for share in shares]
        rows.append([*start, *map(_percent, visible)])
    parts.append(_table(rows, headers))
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    aligned = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="pipe", colalign=aligned, disable_numparse=True)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _with_interval(figures: Mapping[str, Any], factor: float, form: str) -> str:
    if figures["share"] is None:
        return "-"
    ends = [format(factor * end, form) for end in figures.get("interval_95", ())]
    return format(factor * figures["share"], form) + (f" [{', '.join(ends)}]" if ends else "")
