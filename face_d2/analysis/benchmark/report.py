"""The results as Markdown and as the two plots of arXiv 1904.10633, section 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from tabulate import tabulate

from face_d2.analysis.benchmark.published import PUBLISHED, TITAN_XP, PublishedDetector
from face_d2.visualization.style import COLORS, STYLE, save_figure

__all__ = ["markdown", "plot_efficiency", "plot_times"]

_MARKERS = "osD^vPX*"


def markdown(result: Mapping[str, Any]) -> str:
    """Tables of a result of :func:`face_d2.cli.benchmark.main`."""
    detector, machine = result["detector"], result["machine"]
    gflops = ", ".join(f"{size} {value:.3g}" for size, value in detector["gflops"].items())
    peaks = ", ".join(f"{name} {rate:.0f}" for name, rate in result["peaks"].items())
    files = ", ".join(f"{name} {value:.1f}" for name, value in detector["megabytes"].items())
    lines = [
        f"# {detector['config']}",
        "",
        f"{detector['parameters'] / 1e6:.3f} M parameters. 10^9 multiply-adds: {gflops}. "
        f"Files, MB: {files}.",
        "",
        f"{machine['processor']}, {machine['threads']} thread(s), load {machine['load']:.1f}"
        f"{', ' + machine['gpu'] if machine['gpu'] else ''}; {machine['versions']}. Batch 1, "
        f"medians [quartiles] of up to {result['rounds']} rounds in which all rows take turns. "
        f"Best convolution found, 10^9 multiply-adds/s: {peaks}. {result['weights']}",
        "",
        *_table(result, "Network, ms", lambda cell: _milliseconds(cell.get("network"))),
        *_table(
            result,
            "End to end, ms (image in memory to boxes)",
            lambda cell: _milliseconds(cell.get("end to end")),
        ),
        *_table(
            result,
            "E_net, 10^9 multiply-adds/ms (network; larger is better)",
            lambda cell: f"{cell['e_net']:.3g}" if "e_net" in cell else "-",
        ),
        *_table(
            result,
            "Share of the best convolution's rate",
            lambda cell: f"{cell['share_of_peak']:.2f}" if "share_of_peak" in cell else "-",
        ),
        "## Published (not measured here)",
        "",
        _published_table(),
    ]
    return "\n".join(lines) + "\n"


def _table(result: Mapping[str, Any], title: str, cell: Callable[[Any], str]) -> list[str]:
    sizes = result["sizes"]
    rows = [
        [row["name"], *(cell(row["sizes"].get(size, {})) for size in sizes)]
        for row in result["rows"]
    ]
    return [f"## {title}", "", _markdown(["", *sizes], rows), ""]


def _milliseconds(timing: Mapping[str, Any] | None) -> str:
    if timing is None:
        return "-"
    if "error" in timing:
        return f"none: {timing['error']}".replace("|", "/")
    low, high = timing["quartiles"]
    return f"{timing['median']:.4g} [{low:.4g}, {high:.4g}]"


def _published_table() -> str:
    sizes = ((480, 640), (720, 1280), (1080, 1920), (2160, 3840))
    header = ["", "parameters, M", "10^9 multiply-adds, 640x480", "MB", "AP easy / medium / hard"]
    header += [f"{TITAN_XP}, {width}x{height}, ms" for height, width in sizes]
    rows = []
    for one in PUBLISHED:
        times = one.milliseconds.get(TITAN_XP, {})
        ap = "-" if one.ap is None else " / ".join(f"{value:.1f}" for value in one.ap)
        values = [one.parameters, one.gflops, one.megabytes, ap, *(times.get(s) for s in sizes)]
        rows.append([one.name, *("-" if value is None else str(value) for value in values)])
    return _markdown(header, rows)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, header, "github", disable_numparse=True)


def plot_times(result: Mapping[str, Any], path: str | Path) -> list[Path]:
    """Plots the time of the network over image size; published detectors are thin and gray.

    The suffix of ``path`` is replaced by ``.png`` and ``.svg``; returns these files.
    """
    return _plot(
        result,
        path,
        "network, ms",
        lambda cell: cell.get("network", {}).get("median"),
        lambda detector, milliseconds: milliseconds,
    )


def plot_efficiency(result: Mapping[str, Any], path: str | Path) -> list[Path]:
    """Plots E_net over image size; see :func:`plot_times`."""

    def published(detector: PublishedDetector, milliseconds: float) -> float | None:
        return None if detector.gflops is None else detector.gflops / milliseconds

    return _plot(
        result,
        path,
        "$E_{net}$, $10^9$ multiply-adds/ms",
        lambda cell: cell.get("e_net"),
        published,
        only=(480, 640),  # operations are published for this size only
    )


def _plot(
    result: Mapping[str, Any],
    path: str | Path,
    label: str,
    value_of: Callable[[Any], float | None],
    published: Callable[[PublishedDetector, float], float | None],
    only: tuple[int, int] | None = None,
) -> list[Path]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for index, row in enumerate(result["rows"]):
            points = [
                (_pixels(size), value_of(cell))
                for size, cell in row["sizes"].items()
                if value_of(cell) is not None
            ]
            if points:
                color, marker = COLORS[index % len(COLORS)], _MARKERS[index % len(_MARKERS)]
                axes.plot(*zip(*points), color=color, marker=marker, label=row["name"])
        for index, one in enumerate(PUBLISHED):
            points = [
                (height * width / 1e6, published(one, milliseconds))
                for (height, width), milliseconds in one.milliseconds.get(TITAN_XP, {}).items()
                if only in (None, (height, width)) and published(one, milliseconds) is not None
            ]
            if points:
                axes.plot(
                    *zip(*points),
                    color="#999999",
                    linewidth=0.8,
                    marker=_MARKERS[index % len(_MARKERS)],
                    markersize=4,
                    label=f"{one.name} (published, {TITAN_XP})",
                )
        axes.set(xlabel="million pixels", ylabel=label, xscale="log", yscale="log")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
        return save_figure(figure, path)


def _pixels(size: str) -> float:
    width, height = size.split("x")
    return int(width) * int(height) / 1e6
