"""The FDDB protocol: discrete and continuous ROC over faces annotated as ellipses.

The rules of the benchmark's C++ tool (Jain and Learned-Miller, UM-CS-2010-009, section 5) are:

* Overlaps are counted in pixels of filled ellipses and rectangles on the canvas of the image.
* At every score in an image, the detections with at least this score are assigned to the faces so
  that the sum of overlaps is maximal. A pair with overlap adds its IoU to the continuous ROC, and 1
  to the discrete ROC if the IoU is above 0.5.
* In both curves, false positives are the detections without a discrete match.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from face_d2.data.fddb import FDDBImage, read_folds
from face_d2.data.image_size import image_sizes
from face_d2.evaluation.fddb.files import read_fddb_detections
from face_d2.evaluation.fddb.overlap import overlaps
from face_d2.evaluation.plausibility import fractions_warning
from face_d2.evaluation.protocol import format_protocol
from face_d2.utils.files import write_text

__all__ = ["FDDBResult", "fddb_report", "fddb_roc", "format_fddb"]

_IOU_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class FDDBResult:
    """Counts at every score (T thresholds, ascending as in the official files).

    Attributes:
        thresholds: (T,) scores.
        tp: (T,) int64, faces found by the discrete rule.
        fp: (T,) int64, false positives.
        continuous_tp: (T,) float64, sum of overlaps.
        faces: number of annotated faces.
        images: number of images.
        canvas: description of the canvas.
        folds: the results of the ten folds; empty in the result of a fold.
    """

    thresholds: NDArray[np.float64]
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    continuous_tp: NDArray[np.float64]
    faces: int
    images: int
    canvas: str
    folds: tuple[FDDBResult, ...] = ()

    @property
    def protocol(self) -> dict[str, str]:
        """Readable description of the ground truth."""
        return {
            "ground truth": f"FDDB ellipses, {self.images:,} images, {self.faces:,} faces",
            "canvas": self.canvas,
        }

    def discrete_at(self, false_positives: int) -> float:
        """True positive rate (0-1) of the discrete curve at a number of false positives."""
        return self._rate_at(self.tp, false_positives)

    def continuous_at(self, false_positives: int) -> float:
        """True positive rate (0-1) of the continuous curve at a number of false positives."""
        return self._rate_at(self.continuous_tp, false_positives)

    def _rate_at(self, tp: NDArray[np.generic], false_positives: int) -> float:
        # A curve that ends earlier keeps its last value.
        reached = tp[self.fp <= false_positives]
        return float(reached.max(initial=0)) / self.faces

    def write(self, folder: str | Path, prefix: str = "") -> None:
        """Writes ``<prefix>DiscROC.txt`` and ``<prefix>ContROC.txt`` as the official tool does."""
        # The tool's first threshold, which no detection reaches, is the last one here.
        thresholds = [*self.thresholds, np.finfo(np.float64).max]
        fp = [*self.fp, 0]
        discrete = [*(self.tp / self.faces), 0.0]
        continuous = [*(self.continuous_tp / self.faces), 0.0]
        texts = {
            "Disc": [f"{rate:g} {n:d} {s:g}\n" for rate, n, s in zip(discrete, fp, thresholds)],
            "Cont": [f"{rate:g} {n:d}\n" for rate, n in zip(continuous, fp)],
        }
        for curve, lines in texts.items():
            write_text("".join(lines), Path(folder) / f"{prefix}{curve}ROC.txt")


def fddb_roc(
    detections: str | Path | Mapping[str, ArrayLike],
    folds_folder: str | Path,
    canvas: tuple[int, int] = (450, 450),
    *,
    image_root: str | Path | None = None,
) -> FDDBResult:
    """Evaluates a detector on FDDB by the official protocol, on all ten folds together and on each.

    Args:
        detections: a file in FDDB's format, or a mapping from image name to rows. A row is
            "x y w h score" (rectangle) or "major_radius minor_radius angle x y score" (ellipse,
            angle in radians); any order of images and rows.
        folds_folder: ``FDDB-folds`` with the ten ellipse lists.
        canvas: (height, width) in pixels of the canvas for all images. 450 x 450 contains every
            image of FDDB; parts of boxes outside an image then count.
        image_root: folder of ``2002/`` and ``2003/``. If given, the size of each image is its
            canvas, as in the official tool, instead of ``canvas``.

    Returns:
        The result of all folds together; ``.folds`` has the results of the ten folds.

    Warns:
        UserWarning: images have no entry; they count as zero detections.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a row is malformed, a number is NaN or infinite, a size is negative, or an image
            is not in the folds; the message names file and line.
    """
    if min(canvas) <= 0:
        raise ValueError(f"canvas {canvas}: expected a positive height and width in pixels.")
    folds = read_folds(folds_folder)
    images = [image for fold in folds for image in fold]
    rows_of = read_fddb_detections(detections, [image.name for image in images])
    missing = [image.name for image in images if image.name not in rows_of]
    if missing:
        warnings.warn(
            f"{len(missing)} of {len(images)} images have no entry in the detections and count as "
            f"zero detections, the first: {missing[0]}",
            stacklevel=2,
        )
    rectangles = [rows[:, :4] for rows in rows_of.values() if rows.shape[1] == 5]
    if doubt := fractions_warning(np.concatenate([np.zeros((0, 4)), *rectangles])):
        warnings.warn(doubt, stacklevel=2)
    if image_root is None:
        sizes = [canvas] * len(images)
        canvas_words = f"{canvas[0]} x {canvas[1]} px for every image"
    else:
        sizes = image_sizes(image_root, [f"{image.name}.jpg" for image in images])
        canvas_words = "each image's own size"
    steps = [
        _steps_of(image, rows_of.get(image.name, np.zeros((0, 5))), size)
        for image, size in zip(images, sizes)
    ]
    rest = iter(steps)
    results = tuple(_pool(list(islice(rest, len(fold))), fold, canvas_words) for fold in folds)
    return _pool(steps, images, canvas_words, results)


def _steps_of(
    image: FDDBImage, rows: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float64]:
    """What changes in one image when the threshold falls to each of its S scores.

    Returns:
        (S, 4) score; change of the number of detections, discrete and continuous true positives.
    """
    rows = rows[np.argsort(-rows[:, -1], kind="stable")]
    scores, first = np.unique(-rows[:, -1], return_index=True)
    iou = overlaps(rows[:, :-1], image.ellipses, size)  # (D, F)
    # Detections without overlap do not influence the assignment, so it is repeated only at the
    # scores of the others.
    touching = np.any(iou, axis=1)
    counts = np.zeros((len(scores), 3))
    ends = np.append(first[1:], len(rows))
    for step, (start, end) in enumerate(zip(first, ends)):
        counts[step, 0] = end
        if touching[start:end].any():
            counts[step, 1:] = _assign(iou[:end][touching[:end]])
        elif step:
            counts[step, 1:] = counts[step - 1, 1:]
    return np.column_stack([-scores, np.diff(counts, axis=0, prepend=0.0)])


def _assign(iou: NDArray[np.float64]) -> tuple[int, float]:
    """Discrete and continuous true positives of the assignment with the maximum sum of overlaps."""
    pairs = iou[linear_sum_assignment(iou, maximize=True)]
    return int((pairs > _IOU_THRESHOLD).sum()), float(pairs.sum())


def _pool(
    steps: Sequence[NDArray[np.float64]],
    images: Sequence[FDDBImage],
    canvas: str,
    folds: tuple[FDDBResult, ...] = (),
) -> FDDBResult:
    """Sums the counts of several images over the union of their thresholds."""
    rows = np.concatenate(steps)
    rows = rows[np.argsort(-rows[:, 0], kind="stable")]
    scores, counts = rows[:, 0], rows[:, 1:].cumsum(axis=0)
    last = np.flatnonzero(np.diff(scores, append=-np.inf))[::-1]  # last index of each score
    detections, tp = np.rint(counts[last, :2]).astype(np.int64).T
    return FDDBResult(
        thresholds=scores[last],
        tp=tp,
        fp=detections - tp,
        continuous_tp=counts[last, 2],
        faces=sum(len(image.ellipses) for image in images),
        images=len(images),
        canvas=canvas,
        folds=folds,
    )


def fddb_report(result: FDDBResult, protocol: Mapping[str, str]) -> dict[str, Any]:
    """The results in 0-100, in total and by fold, and the test settings, ready for JSON."""
    return {
        **_figures(result),
        "folds": [_figures(fold) for fold in result.folds],
        "protocol": {**protocol, **result.protocol},
    }


def format_fddb(result: FDDBResult, protocol: Mapping[str, str]) -> str:
    """The results at 1,000 and 2,000 false positives, in total and by fold, and the test
    settings."""
    rows = {"all": result, **{f"fold {n}": fold for n, fold in enumerate(result.folds, start=1)}}
    keys = list(_figures(result))
    lines = ["FDDB      " + "".join(f"{key:>12}" for key in keys)]
    for label, row in rows.items():
        lines.append(f"{label:<10}" + "".join(f"{value:12.2f}" for value in _figures(row).values()))
    return "\n".join([*lines, "measured with", format_protocol({**protocol, **result.protocol})])


def _figures(result: FDDBResult) -> dict[str, float]:
    return {
        f"{name}@{n}": 100 * rate_at(n)
        for n in (1000, 2000)
        for name, rate_at in (("disc", result.discrete_at), ("cont", result.continuous_at))
    }
