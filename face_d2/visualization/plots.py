"""Plots of WIDER FACE and FDDB results, as PNG and SVG.

The functions take ``{label: result}``, so one plot can show several detectors. They need no display
and do not touch pyplot's global state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from face_d2.evaluation.fddb.protocol import FDDBResult
from face_d2.evaluation.wider_face.matching import Curve
from face_d2.evaluation.wider_face.protocol import WiderFaceResult
from face_d2.visualization.style import COLORS, STYLE, panel_figure, save_figure

__all__ = [
    "plot_ap_by_attribute",
    "plot_ap_by_height",
    "plot_precision_recall",
    "plot_recall",
    "plot_roc",
]

_MAX_LABEL = 26  # characters of a detector's name that fit into a panel


def plot_precision_recall(results: Mapping[str, WiderFaceResult], path: str | Path) -> list[Path]:
    """Plots precision over recall, one panel per setting, with the AP in the legend.

    Args:
        results: detector -> result.
        path: the file to write; the suffix is replaced by ``.png`` and ``.svg``.

    Returns:
        The written files.

    Raises:
        ValueError: ``results`` is empty.
    """

    def finish(axes: Axes, title: str) -> None:
        axes.set(title=f"{title} (AP)", xlabel="recall", xlim=(0, 1))
        _legend(axes, "lower left")

    return _plot_settings(
        results, path, "precision", lambda c: (*_precision_over_recall(c), c.ap), finish
    )


def plot_recall(results: Mapping[str, WiderFaceResult], path: str | Path) -> list[Path]:
    """Plots recall over false positives per image, one panel per setting.

    See :func:`plot_precision_recall` for arguments, return value and errors.
    """

    def finish(axes: Axes, title: str) -> None:
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set(
            title=f"{title} (recall at the lowest score)",
            xlabel="false positives per image",
            xlim=(0, None),
        )
        _legend(axes, "lower right")

    return _plot_settings(
        results,
        path,
        "recall",
        lambda c: (c.false_positives_per_image, c.recall, c.recall[-1]),
        finish,
    )


def plot_ap_by_height(results: Mapping[str, WiderFaceResult], path: str | Path) -> list[Path]:
    """Plots the AP of Hard faces by height, with the number of faces per class.

    See :func:`plot_precision_recall` for arguments, return value and errors.
    """
    groups = {label: {"face height, px": result.by_height()} for label, result in results.items()}
    return _plot_classes(groups, results, path)


def plot_ap_by_attribute(results: Mapping[str, WiderFaceResult], path: str | Path) -> list[Path]:
    """Plots the AP of Hard faces by blur, expression, illumination, occlusion and pose.

    See :func:`plot_precision_recall` for arguments and return value.

    Raises:
        ValueError: ``results`` is empty, or the ground truth has no attributes.
    """
    groups = {label: result.by_attribute() for label, result in results.items()}
    if not all(groups.values()):
        raise ValueError("the ground truth has no attributes, so AP by attribute is unknown.")
    return _plot_classes(groups, results, path)


def plot_roc(
    results: Mapping[str, FDDBResult], path: str | Path, max_false_positives: int = 2000
) -> list[Path]:
    """Plots FDDB's discrete and continuous ROC; the legend has the rate at 1,000 false positives.

    The x axis ends at ``max_false_positives``. See :func:`plot_precision_recall` for the other
    arguments, return value and errors.
    """
    if not results:
        raise ValueError("no result to plot.")
    with matplotlib.rc_context(STYLE):
        figure, panels = panel_figure(2, width=4.2)
        for color, (label, result) in zip(_colors(results), results.items()):
            values = (
                (result.tp, result.discrete_at(1000)),
                (result.continuous_tp, result.continuous_at(1000)),
            )
            for axes, (tp, at_1000) in zip(panels, values):
                rate = tp / result.faces
                axes.plot(result.fp, rate, color=color, label=_entry(at_1000, ".4f", label))
                # After the end of a curve, its last value counts.
                axes.plot(
                    [result.fp.max(initial=0), max_false_positives],
                    [rate.max(initial=0)] * 2,
                    color=color,
                    linestyle=":",
                )
        for axes, title in zip(panels, ("Discrete", "Continuous")):
            axes.set(
                title=f"{title} ROC (at 1,000)",
                xlabel="false positives",
                xlim=(0, max_false_positives),
                ylim=(0, 1.01),
            )
            _legend(axes, "lower right")
        panels[0].set_ylabel("true positive rate")
        _note(figure, results)
        return save_figure(figure, path)


def _plot_settings(
    results: Mapping[str, WiderFaceResult],
    path: str | Path,
    ylabel: str,
    values: Callable[[Curve], tuple[NDArray[np.float64], NDArray[np.float64], float]],
    finish: Callable[[Axes, str], None],
) -> list[Path]:
    """Plots a curve per detector, one panel per setting.

    ``values`` returns x, y and the value for the legend (0-1) of a curve, and ``finish`` sets the
    other properties of the axes of a setting.
    """
    settings = _settings(results)
    with matplotlib.rc_context(STYLE):
        figure, panels = panel_figure(len(settings), width=3.3)
        for axes, setting in zip(panels, settings):
            for color, (label, result) in zip(_colors(results), results.items()):
                x, y, shown = values(result.curves[setting])
                axes.plot(x, y, color=color, label=_entry(100 * shown, ".1f", label))
            axes.set_ylim(0, 1.01)
            finish(axes, setting.capitalize())
        panels[0].set_ylabel(ylabel)
        _note(figure, results)
        return save_figure(figure, path)


def _plot_classes(
    groups: Mapping[str, Mapping[str, Mapping[str, Curve]]],
    results: Mapping[str, WiderFaceResult],
    path: str | Path,
) -> list[Path]:
    """Plots bars of detector -> group -> class -> curve, one panel per group."""
    _settings(results)
    names = list(next(iter(groups.values())))
    with matplotlib.rc_context(STYLE):
        sizes = [len({label for g in groups.values() for label in g[name]}) for name in names]
        figure, panels = panel_figure(len(names), width=max(1.9, 0.75 * max(sizes)), widths=sizes)
        for axes, name in zip(panels, names):
            _bars(axes, {label: group[name] for label, group in groups.items()})
            axes.set(xlabel=name, ylim=(0, 105))
            axes.grid(axis="x", visible=False)
        panels[0].set_ylabel("AP, Hard faces")
        if len(groups) > 1:
            figure.legend(
                *panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=4
            )
        _note(figure, results)
        return save_figure(figure, path)


def _bars(axes: Axes, detectors: Mapping[str, Mapping[str, Curve]]) -> None:
    """Draws one group of bars per class, with one bar per detector."""
    classes = list(next(iter(detectors.values())))
    width = 0.8 / len(detectors)
    for index, (color, (label, curves)) in enumerate(zip(_colors(detectors), detectors.items())):
        at = np.arange(len(classes)) + (index - (len(detectors) - 1) / 2) * width
        heights = [100 * curves[name].ap if name in curves else np.nan for name in classes]
        bars = axes.bar(at, heights, width=width * 0.92, color=color, label=label)
        if len(detectors) <= 2:
            axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    faces = [next(iter(detectors.values()))[name].faces for name in classes]
    axes.set_xticks(
        np.arange(len(classes)),
        [f"{name}\n{count:,}" for name, count in zip(classes, faces)],
        fontsize=8,
    )


def _precision_over_recall(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision at the thresholds with detections, starting at recall 0."""
    proposed = curve.proposals > 0
    recall, precision = curve.recall[proposed], curve.precision[proposed]
    return np.append(0.0 * recall[:1], recall), np.append(precision[:1], precision)


def _entry(value: float, form: str, label: str) -> str:
    """A line of the legend; long names are truncated."""
    name = label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 1]}…"
    return f"{value:{form}}  {name}"


def _legend(axes: Axes, place: str) -> None:
    axes.legend(loc=place).set_in_layout(False)


def _settings(results: Mapping[str, WiderFaceResult]) -> Sequence[str]:
    if not results:
        raise ValueError("no result to plot.")
    return list(next(iter(results.values())).curves)


def _colors(labels: Mapping[str, object]) -> list[str]:
    return [COLORS[index % len(COLORS)] for index in range(len(labels))]


def _note(figure: Figure, results: Mapping[str, WiderFaceResult | FDDBResult]) -> None:
    """Writes the ground truth below the panels."""
    notes = ("; ".join(f"{k}: {v}" for k, v in r.protocol.items()) for r in results.values())
    figure.supxlabel("\n".join(dict.fromkeys(notes)), fontsize=7, color="#666666")
