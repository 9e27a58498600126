"""The WIDER FACE protocol: average precision on Easy, Medium and Hard faces, with NumPy only.

The rules of the benchmark's MATLAB tool (Yang et al., "WIDER FACE: A Face Detection Benchmark",
CVPR 2016, and its evaluation toolbox), computed without its loops:

* Every detection is matched to one face, the one with the highest IoU (the first one on ties) among
  all faces of its image, including ignored faces. The IoU includes both border pixels ("+1").
* If the IoU is at least 0.5 and the face is ignored, the detection is removed. If the face counts,
  the detection with the highest score detects it. All other detections are false positives.
* Scores are normalized to 0-1 over the whole set. Precision and recall are computed at the 1,000
  thresholds 1 - t/1000. The AP is the area under the envelope of this curve.

The face of a detection does not depend on other detections. Therefore the order of rows does not
matter, and the evaluation needs one IoU matrix per image and a few histograms.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_d2.data.wider_face import image_key
from face_d2.evaluation.plausibility import fractions_warning, other_form_warning
from face_d2.evaluation.wider_face import breakdown as details
from face_d2.evaluation.wider_face.files import check_detections, read_predictions
from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth, read_ground_truth
from face_d2.evaluation.wider_face.matching import Curve, Matches, build_curve, match

__all__ = ["WiderFaceResult", "widerface_ap"]

_NO_ROWS = np.zeros((0, 5))


@dataclass(frozen=True, eq=False)
class WiderFaceResult(Mapping[str, float]):
    """Average precisions in 0-1, ``AP_easy``, ``AP_medium`` and ``AP_hard``, with their details.

    Attributes:
        curves: setting -> :class:`Curve`.
        ground_truth: the faces, with descriptions ``source`` and ``images``.
        matches: every detection and its face.
        intervals: setting -> 95 % bootstrap interval (low, high) of the AP; empty unless requested.
    """

    curves: dict[str, Curve]
    ground_truth: WiderFaceGroundTruth
    matches: Matches
    intervals: dict[str, tuple[float, float]]

    def __getitem__(self, key: str) -> float:
        setting = key.removeprefix("AP_")
        if not key.startswith("AP_") or setting not in self.curves:
            raise KeyError(key)
        return self.curves[setting].ap

    def __iter__(self) -> Iterator[str]:
        return (f"AP_{setting}" for setting in self.curves)

    def __len__(self) -> int:
        return len(self.curves)

    @property
    def protocol(self) -> dict[str, str]:
        """Readable description of the ground truth."""
        return {"ground truth": self.ground_truth.source, "images": self.ground_truth.images}

    def by_height(self, setting: str = "hard") -> dict[str, Curve]:
        """See :func:`.breakdown.height_breakdown`."""
        return details.height_breakdown(self.matches, self.ground_truth, setting)

    def by_attribute(self, setting: str = "hard") -> dict[str, dict[str, Curve]]:
        """See :func:`.breakdown.attribute_breakdown`."""
        return details.attribute_breakdown(self.matches, self.ground_truth, setting)

    def false_positives(self, limit: int, setting: str = "hard") -> list[details.FalsePositive]:
        """See :func:`.breakdown.top_false_positives`."""
        return details.top_false_positives(self.matches, self.ground_truth, setting, limit)

    def misses(self, limit: int, setting: str = "hard") -> list[details.Miss]:
        """See :func:`.breakdown.top_misses`."""
        return details.top_misses(self.matches, self.ground_truth, setting, limit)

    def __str__(self) -> str:
        figures = []
        for setting, curve in self.curves.items():
            text = f"AP_{setting} {curve.ap:.5f}"
            if setting in self.intervals:
                text += " [{:.3f}, {:.3f}]".format(*self.intervals[setting])
            figures.append(text)
        return f"{'  '.join(figures)}  ({'; '.join(self.protocol.values())})"


def widerface_ap(
    predictions: str | Path | Mapping[str, ArrayLike],
    ground_truth: str | Path | WiderFaceGroundTruth,
    *,
    images: Iterable[str] | None = None,
    subset_name: str | None = None,
    bootstrap: int = 0,
    seed: int = 0,
) -> WiderFaceResult:
    """Evaluates a detector on WIDER FACE by the official protocol.

    Args:
        predictions: a folder or archive of text files in the exchange format, or a mapping
            ``{"event/name": (N, 5) x, y, w, h, score}`` in original-image pixels, in any order.
        ground_truth: folder of the official .mat files; an annotation text (the lists are then
            approximated, and the result says so); or a :class:`WiderFaceGroundTruth`.
        images: restricts the evaluation to these images ``event/name``. Predictions for others are
            left out and do not influence the normalization of scores.
        subset_name: name of this subset in the result.
        bootstrap: number of resamples of the images for 95 % intervals; 0 for no intervals.
        seed: seed of the resampling.

    Returns:
        A mapping with ``AP_easy``, ``AP_medium``, ``AP_hard`` in 0-1 (NaN if no face counts). If
        all scores are equal, the official tool divides by zero; here, every detection then counts
        at every threshold.

    Warns:
        UserWarning: images have no prediction (they count as zero detections), all scores are
            equal, the detections look normalized, or fit the faces as x1 y1 x2 y2 or as centers, or
            predictions name files without the images' folders.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a file is malformed, a number is NaN or infinite, a size is negative, an image
            is not in the ground truth (the message names file and row), or ``bootstrap`` is
            negative.
    """
    if bootstrap < 0:
        raise ValueError(f"bootstrap is {bootstrap}; expected 0 or more")
    if not isinstance(ground_truth, WiderFaceGroundTruth):
        ground_truth = read_ground_truth(ground_truth)
    if not isinstance(predictions, Mapping):
        predictions = read_predictions(predictions)
    detections = _by_image(predictions, ground_truth)
    if images is not None:
        ground_truth = ground_truth.subset(images, subset_name)
    elif subset_name is not None:
        raise ValueError("subset_name given without images: there is no subset to name.")
    missing = [name for name in ground_truth.names if name not in detections]
    if missing:
        warnings.warn(
            f"{len(missing)} of {len(ground_truth)} images have no prediction and count as zero "
            f"detections, the first: {missing[0]}",
            stacklevel=2,
        )
    rows = [detections.get(name, _NO_ROWS) for name in ground_truth.names]
    matches = match(rows, ground_truth)
    doubt = fractions_warning(matches.boxes) or other_form_warning(rows, ground_truth)
    if doubt:
        warnings.warn(doubt, stacklevel=2)
    low, high = matches.score_range
    if len(matches.scores) and low == high:
        warnings.warn(
            f"all {len(matches.scores)} scores equal {low:g}: the curve has a single point",
            stacklevel=2,
        )
    curves = {
        setting: build_curve(matches, ground_truth, kept)
        for setting, kept in ground_truth.kept.items()
    }
    intervals = {}
    if bootstrap:
        intervals = details.bootstrap_intervals(matches, ground_truth, bootstrap, seed)
    return WiderFaceResult(curves, ground_truth, matches, intervals)


def _by_image(
    predictions: Mapping[str, ArrayLike], ground_truth: WiderFaceGroundTruth
) -> dict[str, NDArray[np.float64]]:
    known, detections = set(ground_truth.names), {}
    by_file = _names_by_file(predictions, ground_truth)
    by_letters = {unicodedata.normalize("NFC", name): name for name in known}
    for given, rows in predictions.items():
        name = by_file.get(given) or image_key(given, known)
        name = by_letters.get(unicodedata.normalize("NFC", name), name)
        if name not in known:
            file = name.rpartition("/")[2]
            same = [other for other in known if other.rpartition("/")[2] == file]
            hint = f"; it has {same[0]!r}" if len(same) == 1 else ""
            raise ValueError(
                f"predictions for {given!r}, which is not in the ground truth "
                f"({ground_truth.source}){hint}; expected names 'event/name' of its images."
            )
        if name in detections:
            raise ValueError(f"predictions for {name!r} given twice, with and without extension.")
        detections[name] = check_detections(rows, f"predictions for {given!r}")
    return detections


def _names_by_file(
    predictions: Mapping[str, ArrayLike], ground_truth: WiderFaceGroundTruth
) -> dict[str, str]:
    """Prediction -> image, where no prediction names a folder of the images but all their files.

    A flat folder of predictions is meant so; file names that occur twice are not matched.
    """
    known = set(ground_truth.names)
    if not predictions or any(image_key(given, known) in known for given in predictions):
        return {}
    files: dict[str, str] = {}
    for name in ground_truth.names:
        file = name.rpartition("/")[2]
        files[file] = "" if file in files else name
    matched = {given: files.get(image_key(given).rpartition("/")[2], "") for given in predictions}
    if not all(matched.values()) or len(set(matched.values())) < len(matched):
        return {}
    warnings.warn(
        f"no prediction lies in a folder of the images, for example {next(iter(predictions))!r}; "
        "predictions were matched to images by their file names alone",
        stacklevel=4,
    )
    return matched
