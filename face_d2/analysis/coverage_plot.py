"""The plot of a coverage report."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from face_d2.analysis.coverage import Coverage
from face_d2.visualization.style import COLORS, STYLE, panel_figure, save_figure

__all__ = ["plot_coverage"]

_UNCOVERED_COLORS = ("#cccccc", "#999999", "#666666")


def plot_coverage(coverage: Coverage, path: str | Path) -> list[Path]:
    """Plots the share of covered faces by face height, the kind of match, and the level.

    The suffix of ``path`` is replaced by ``.png`` and ``.svg``; returns these files.
    """
    rows = coverage.by_height()
    at = np.arange(len(rows))
    ticks = [f"{label}\n{row.faces:,}" for label, row in rows.items()]
    with matplotlib.rc_context(STYLE):
        figure, (bars, lines) = panel_figure(2, width=max(3.0, 0.62 * len(rows)))
        top = np.zeros(len(rows))
        colors = dict(zip(coverage.covered_by, COLORS[2::-2]))
        colors.update(zip(coverage.uncovered, _UNCOVERED_COLORS))
        for name, color in colors.items():
            shares = np.array([100 * row.shares[name] for row in rows.values()])
            bars.bar(at, shares, bottom=top, width=0.75, color=color, label=name)
            top += shares
        for index, level in enumerate(coverage.levels):
            lines.plot(
                at,
                [100 * row.levels[level] for row in rows.values()],
                color=COLORS[index % len(COLORS)],
                linestyle="-" if index < len(COLORS) else "--",
                marker="o",
                markersize=3,
                label=level,
            )
        bars.set(title="covered faces", ylabel="faces, %", ylim=(0, 101))
        lines.set(title="by level (a face may have several)")
        for axes in (bars, lines):
            axes.set_xticks(at, ticks, fontsize=7)
            axes.set_xlabel("face height, px")
            axes.grid(axis="x", visible=False)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.32), ncols=4, fontsize=7)
        setup = "; ".join(coverage.protocol.values())
        figure.supxlabel(f"{coverage.dataset}: {setup}", fontsize=7, color="#666666")
        return save_figure(figure, path)
