"""The look that all figures share, and how they are written.

Matplotlib's object interface is used throughout: no display, and no global state that a caller's
own figures could meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["COLORS", "STYLE", "panel_figure", "save_figure"]

#: Okabe and Ito's colors, told apart with every common kind of color vision.
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
    "svg.hashsalt": "face_d2",  # the same figure gives the same bytes
}


def panel_figure(
    panels: int, width: float, widths: Sequence[int] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side that share the y axis.

    Args:
        panels: how many.
        width: of the widest panel, in inches.
        widths: the panels' widths in relation to each other; None for equal ones.
    """
    total = width * (panels if widths is None else sum(widths) / max(widths))
    figure = Figure(figsize=(total, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=widths)
    return figure, list(axes[0])


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Writes ``path`` with the suffixes ``.png`` and ``.svg``; returns both."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [path.with_suffix(".png"), path.with_suffix(".svg")]
    figure.savefig(files[0])
    figure.savefig(files[1], metadata={"Date": None})
    return files
