"""WIDER FACE results as JSON data and as text, including the test settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from face_d2.evaluation.protocol import format_protocol
from face_d2.evaluation.wider_face.matching import Curve
from face_d2.evaluation.wider_face.protocol import WiderFaceResult
from face_d2.utils.files import without_nan, write_json

__all__ = [
    "curve_figures",
    "final_recall",
    "format_widerface",
    "widerface_report",
    "without_nan",
    "write_json",
]


def widerface_report(
    result: WiderFaceResult, protocol: Mapping[str, str], errors: int = 50
) -> dict[str, Any]:
    """A result as data for :func:`write_json`; figures are in 0-100.

    Args:
        result: the result of :func:`face_d2.evaluation.widerface_ap`.
        protocol: description of the test settings; that of the ground truth is added.
        errors: number of false positives and misses to list.

    Returns:
        ``AP_*``, ``interval_95`` (setting -> [low, high]), ``recall`` of all detections, ``faces``,
        ``detections``, ``protocol``, ``by_height``, ``by_attribute`` (class -> AP, recall, faces,
        over Hard faces), ``false_positives`` and ``misses``.
    """
    return {
        **{key: 100 * value for key, value in result.items()},
        "interval_95": {k: [100 * end for end in ends] for k, ends in result.intervals.items()},
        "recall": {setting: final_recall(curve) for setting, curve in result.curves.items()},
        "faces": {setting: curve.faces for setting, curve in result.curves.items()},
        "detections": len(result.matches.scores),
        "protocol": {**protocol, "detections": _detections(result), **result.protocol},
        "by_height": curve_figures(result.by_height()),
        "by_attribute": {key: curve_figures(part) for key, part in result.by_attribute().items()},
        "false_positives": [asdict(error) for error in result.false_positives(errors)],
        "misses": [asdict(miss) for miss in result.misses(errors)],
    }


def format_widerface(report: Mapping[str, Any]) -> str:
    """The results, intervals, breakdowns and test settings as lines of text."""
    lines = ["WIDER FACE        AP   recall    faces"]
    for setting, faces in report["faces"].items():
        line = _row(setting, report[f"AP_{setting}"], report["recall"][setting], faces)
        if setting in report["interval_95"]:
            line += "   95 % interval {:.1f} - {:.1f}".format(*report["interval_95"][setting])
        lines.append(line)
    groups = {"height, px": report["by_height"], **report["by_attribute"]}
    for name, classes in groups.items():
        lines.append(f"Hard, by {name}")
        lines += [
            _row(f"  {label}", figures["AP"], figures["recall"], figures["faces"])
            for label, figures in classes.items()
        ]
    return "\n".join([*lines, "measured with", format_protocol(report["protocol"])])


def _detections(result: WiderFaceResult) -> str:
    """Describes the detections: their number, the maximum per image, and the range of scores."""
    scores = result.matches.scores
    if not len(scores):
        return "none"
    most = int(np.bincount(result.matches.image).max())
    return f"{len(scores):,}, at most {most} an image, scores {scores.min():g} to {scores.max():g}"


def curve_figures(curves: Mapping[str, Curve]) -> dict[str, dict[str, float]]:
    """Class -> AP, recall of all detections (both in 0-100) and number of faces."""
    return {
        label: {"AP": 100 * curve.ap, "recall": final_recall(curve), "faces": curve.faces}
        for label, curve in curves.items()
    }


def final_recall(curve: Curve) -> float:
    """Recall of all detections, in percent."""
    return 100 * float(curve.recall[-1])


def _row(label: str, ap: float, recall: float, faces: int) -> str:
    return f"{label:<14}{ap:7.2f}  {recall:6.1f}  {faces:7,d}"
