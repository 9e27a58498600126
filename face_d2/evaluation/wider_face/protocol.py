"""The WIDER FACE protocol: average precision on Easy, Medium and Hard faces. NumPy only.

What the benchmark's MATLAB tool computes (Yang et al., "WIDER FACE: A Face Detection Benchmark",
CVPR 2016, and its evaluation toolbox), without its loops:

* Every detection looks at one face only, the one it overlaps most (first on ties) among all faces
  of its image, ignored ones included; the overlap counts both border pixels ("+1").
* At IoU >= 0.5 with a face that does not count, the detection is taken out; with one that counts,
  the detection of highest score finds it and the others are false positives, as is everything else.
* Scores are stretched to 0-1 over the whole set; precision and recall are taken at the 1,000
  thresholds 1 - t/1000. The AP is the area under the envelope of that curve.

Since a detection's face does not depend on other detections, the order of the rows never matters
and the whole evaluation is one IoU per image and a few histograms.
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
    """Average precisions in 0-1 under ``AP_easy``, ``AP_medium``, ``AP_hard``, and what made them.

    Attributes:
        curves: setting -> :class:`Curve`.
        ground_truth: the faces evaluated on (with ``source`` and ``images`` in words).
        matches: every detection and its face.
        intervals: setting -> 95 % bootstrap interval (low, high) of the AP; empty unless asked for.
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
        """What the figures were measured against, in words."""
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
    """Scores a detector on WIDER FACE by the official protocol.

    Args:
        predictions: a folder or archive of the community's text files, or a mapping
            ``{"event/name": (N, 5) x, y, w, h, score}`` in original-image pixels, in any order.
        ground_truth: folder of the official .mat files; an annotation text (the lists are then
            approximated, and the result says so); or what :mod:`.wider_face_ground_truth` made.
        images: restricts the evaluation to these images ``event/name``; predictions on others
            are left out, also from the stretching of scores.
        subset_name: what to call that restriction in the result.
        bootstrap: number of resamplings of the images for 95 % intervals; 0 leaves them out.
        seed: of the resampling.

    Returns:
        A mapping with ``AP_easy``, ``AP_medium``, ``AP_hard`` in 0-1 (NaN where the images have no
        face that counts). When all scores are equal, which the official tool divides by zero on,
        every detection counts at every threshold.

    Warns:
        UserWarning: when images have no prediction (they count as zero detections), all scores are
            equal, or the detections look normalised or fit the faces as x1 y1 x2 y2 or as centers;
            when predictions go by file names alone, without the images' folders.

    Raises:
        FileNotFoundError: on a missing path.
        ValueError: on malformed files, NaN or infinite numbers, negative sizes, and images that are
            not in the ground truth; file and row are named. On a negative ``bootstrap``.
    """
    if bootstrap < 0:
        raise ValueError(f"bootstrap {bootstrap}: must be >= 0 resamplings.")
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
