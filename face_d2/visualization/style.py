"""The common style of all plots, and how they are saved.

Plots need no display and do not touch pyplot's global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLORS", "STYLE", "panel_figure", "save_figure"]

#: The colors of Okabe and Ito, which can be distinguished with color blindness.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "svg.hashsalt": "face_d2",  # reproducible files
}


def panel_figure(
    panels: int, width: float, widths: Sequence[int] | None = None
) -> tuple[Figure, list[Axes]]:
    """Creates panels side by side that share the y axis.

    The widest panel is ``width`` inches wide; ``widths`` are relative, None for equal widths.
    """
    total = width * (panels if widths is None else sum(widths) / max(widths))
    figure = Figure(figsize=(total, 3.2), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=widths)
    return figure, list(axes[0])


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Writes ``path`` with the suffixes ``.png`` and ``.svg``; returns both paths."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(".png"), path.with_suffix(".svg")]
    figure.savefig(files[0])
    figure.savefig(files[1], metadata={"Date": None})
    return files
