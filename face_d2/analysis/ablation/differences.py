"""Differences between the rows of a suite, with intervals of the paired bootstrap.

Two rows are evaluated on the same resamples of the images, so effects of easy and hard images on
both cancel out. The interval is that of the trained networks on other images of this kind; how much
the seed matters is shown by the differences of the single seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from face_d2.analysis.ablation.suite import Suite
from face_d2.evaluation.wider_face.breakdown import percentile_interval, resampled_aps
from face_d2.evaluation.wider_face.ground_truth import SETTINGS, WiderFaceGroundTruth
from face_d2.evaluation.wider_face.protocol import widerface_ap

__all__ = ["RESAMPLES", "Results", "differences", "differences_table", "resampled_run"]

RESAMPLES = 1000

#: Row -> its runs in the order of seeds.
Results = Mapping[str, Sequence[Mapping[str, Any]]]


def resampled_run(
    predictions: str | Path, ground_truth: WiderFaceGroundTruth
) -> dict[str, list[float | None]]:
    """The APs of a run over resamples of the images, for the JSON file of the run.

    Args:
        predictions: the folder of detections that the evaluation has written.
        ground_truth: the faces.

    Returns:
        setting -> ``RESAMPLES`` APs in 0-100, rounded to 0.1; None in a resample without a face
        that counts. Runs on the same images have the same resamples.
    """
    matches = widerface_ap(predictions, ground_truth).matches
    resampled = resampled_aps(matches, ground_truth, RESAMPLES, seed=0)
    return {
        setting: [None if np.isnan(ap) else round(100 * float(ap), 1) for ap in aps]
        for setting, aps in resampled.items()
    }


def differences(suite: Suite, results: Results) -> list[dict[str, Any]]:
    """The APs of every row minus those of the first row.

    Args:
        suite: determines order and labels.
        results: the result of :func:`face_d2.analysis.ablation.report.collect`.

    Returns:
        For every later row and setting: ``row``, ``baseline``, ``setting``, ``by_seed`` (the
        differences in points of the seeds that both rows have), their mean ``difference``, and its
        ``interval_95`` by the paired bootstrap over images. Empty if a run of the first row, or of
        every other row, has no resampled APs.
    """
    rows = [
        row
        for row in suite.rows
        if row in results and all("resampled" in run for run in results[row])
    ]
    baseline = next(iter(suite.rows))
    if baseline not in rows:
        return []
    others = {run["seed"]: run for run in results[baseline]}
    found = []
    for row in rows[1:]:
        pairs = [(run, others[run["seed"]]) for run in results[row] if run["seed"] in others]
        for setting in SETTINGS:
            key = f"AP_{setting}"
            if not pairs or any(run[key] is None for pair in pairs for run in pair):
                continue
            by_seed = [run[key] - other[key] for run, other in pairs]
            gaps = [_resampled(run, setting) - _resampled(other, setting) for run, other in pairs]
            found.append(
                {
                    "row": row,
                    "baseline": baseline,
                    "setting": setting,
                    "difference": statistics.mean(by_seed),
                    "interval_95": list(percentile_interval(np.mean(gaps, axis=0))),
                    "by_seed": by_seed,
                }
            )
    return found


def differences_table(suite: Suite, results: Results) -> str:
    """The differences in Markdown, or an empty text if there are none."""
    cells: dict[str, list[str]] = {}
    for entry in differences(suite, results):
        label, _ = suite.rows[entry["row"]]
        low, high = entry["interval_95"]
        seeds = " / ".join(f"{gap:+.1f}" for gap in entry["by_seed"])
        cell = f"{entry['difference']:+.1f} [{low:+.1f}, {high:+.1f}] ({seeds})"
        cells.setdefault(label, []).append(cell)
    if not cells:
        return ""
    baseline, _ = next(iter(suite.rows.values()))
    table = tabulate(
        [[label, *row] for label, row in cells.items()],
        (f"minus {baseline!r}", *SETTINGS),
        "github",
        disable_numparse=True,
    )
    note = (
        "Mean difference of the seeds that both rows have [95 % interval of the paired "
        f"bootstrap over images, {RESAMPLES:,} resamples] (seed by seed)."
    )
    return f"{table}\n\n{note}\n"


def _resampled(run: Mapping[str, Any], setting: str) -> np.ndarray:
    """(B,) the AP in each resample."""
    return np.array(run["resampled"][setting], np.float64)
