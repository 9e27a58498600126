"""The model card of a fine-tuned detector, in Markdown, and the curve of its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from tabulate import tabulate

from face_d2.visualization.style import COLORS, STYLE, panel_figure, save_figure

__all__ = ["average_last", "format_card", "plot_loss"]

_SETTINGS = ("easy", "medium", "hard")
_WINDOW = 20


def format_card(facts: Mapping[str, Any], detectors: Mapping[str, Mapping[str, Any]]) -> str:
    """The card.

    Args:
        facts: ``title``, ``start`` (the weights it began with), ``data``, ``choices``, ``recipe``,
            ``threshold``, ``notes`` (lists of sentences), ``kept`` (a sentence and, as
            ``kept_name``, one of ``detectors``), ``images``, ``files`` (name -> what it is).
        detectors: name -> figures of :func:`face_d2.analysis.compare.comparison.compare`.
    """
    rows = []
    for name, figures in detectors.items():
        cells = [name]
        for setting in _SETTINGS:
            low, high = figures["interval_95"].get(setting, (None, None))
            between = "" if low is None else f" [{low:.1f}, {high:.1f}]"
            value = figures[f"AP_{setting}"]
            cells.append(f"{value:.1f}{between}" if value == value else "no faces")
        rows.append(cells)
    kept = detectors[facts["kept_name"]]
    settings = kept["protocol"].items()
    protocol = "; ".join(f"{key}: {value}" for key, value in settings if key != "file")
    parts = [
        f"# {facts['title']}",
        f"A face detector, fine-tuned from `{facts['start']}` by `face-d2-train --data`.",
        _table(["AP [95 % interval]", *_SETTINGS], rows),
        facts["kept"],
        f"WIDER FACE's protocol on {facts['images']} validation pictures. Easy, medium and hard "
        "are the faces above 50, 30 and 10 pixels, or the official lists where the data set has "
        f"them. The better weights were chosen on the same pictures. {protocol}.",
        _list("Use", facts["threshold"]),
        _list("Data", facts["data"]),
        _list("Settings", [*facts["choices"], *facts["recipe"]]),
        "![Loss over iterations](loss.png)",
        _list("Files", [f"`{name}`: {what}" for name, what in facts["files"].items()]),
        "## Where it fails",
        _errors(kept),
        *(_slice(group, classes) for group, classes in kept["slices"].items()),
        _list("License", facts["notes"]),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def plot_loss(losses: Sequence[tuple[int, float, float]], path: Path) -> list[Path]:
    """Draws the loss of every iteration, its running mean and the learning rate.

    Args:
        losses: (iteration, loss, learning rate).
        path: the files' name; they end in ``.png`` and ``.svg``.
    """
    iterations, values, rates = ([row[column] for row in losses] for column in range(3))
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = panel_figure(1, width=6.5)
        axes.plot(iterations, values, color=COLORS[5], linewidth=0.7, label="loss")
        axes.plot(iterations, average_last(values), color=COLORS[0], label=f"mean of {_WINDOW}")
        axes.set(xlabel="iteration", ylabel="loss")
        axes.set_ylim(bottom=0)
        other = axes.twinx()
        other.plot(iterations, rates, color=COLORS[1], linestyle="--", label="learning rate")
        other.set(ylabel="learning rate", ylim=(0, None))
        other.spines["right"].set_visible(True)
        other.grid(False)
        handles = [*axes.get_lines(), *other.get_lines()]
        axes.legend(handles, [line.get_label() for line in handles], loc="upper right")
        return save_figure(figure, path)


def average_last(values: Sequence[float]) -> list[float]:
    """The running mean over each value and at most 19 values before it."""
    parts = (values[max(0, end - _WINDOW) : end] for end in range(1, len(values) + 1))
    return [sum(part) / len(part) for part in parts]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    sides = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="pipe", colalign=sides, disable_numparse=True)


def _list(title: str, sentences: Sequence[str]) -> str:
    lines = [f"## {title}", "", *(f"- {sentence}" for sentence in sentences)]
    return "\n".join(lines) if sentences else ""


def _errors(figures: Mapping[str, Any]) -> str:
    point, errors = figures["at_threshold"], figures["errors"]
    missed = ", ".join(f"{count} {reason}" for reason, count in errors["missed"].items())
    false = ", ".join(f"{count} {kind}" for kind, count in errors["false"].items())
    return (
        f"At a score of {point['threshold']} it finds {point['found']} of {point['faces']} faces "
        f"above 10 pixels, with {point['false_positives_per_image']:.2f} false detections an "
        f"image. Missed faces by the first reason that holds: {missed}. False detections: {false}."
    )


def _slice(group: str, classes: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [label, f"{row['faces']:,}", f"{row['recall']:.0f}", f"{row['AP']:.1f}"]
        for label, row in classes.items()
        if row["faces"]
    ]
    return _table([group, "faces", "recall, %", "AP"], rows) if len(rows) > 1 else ""
