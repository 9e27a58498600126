"""The results as one HTML file that opens without a network, as text and as Markdown."""

from __future__ import annotations

import importlib.resources
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from face_d2.evaluation.protocol import format_protocol
from face_d2.utils.files import without_nan, write_json, write_text
from face_d2.utils.requirements import is_importable, require

__all__ = [
    "format_markdown",
    "format_results",
    "make_page",
    "warn_without_page",
    "write_results",
]

_SETTINGS = ("easy", "medium", "hard")


def write_results(results: Mapping[str, Any], output: str | Path) -> Path:
    """Writes ``index.html``, ``results.json``, ``results.txt`` and ``results.md``.

    Without plotly, which contains the JavaScript of the charts, there is no ``index.html``; see
    :func:`warn_without_page`. The results are those of :func:`.comparison.compare`.

    Returns:
        The page, or ``results.md`` where there is none.
    """
    output = Path(output)
    page = make_page(results) if is_importable("plotly") else None
    write_json(_without_pictures(results), output / "results.json")
    texts = {"results.txt": format_results(results), "results.md": format_markdown(results)}
    if page is not None:
        texts["index.html"] = page
    for name, text in texts.items():
        write_text(text, output / name)
    return output / ("results.md" if page is None else "index.html")


def warn_without_page() -> None:
    """Warns if :func:`write_results` will write no page; call it before hours of work."""
    try:
        require("compare")
    except ImportError as error:
        warnings.warn(
            f"results.json, results.txt and results.md will be written, but no page: {error}, and "
            "the same command adds it",
            stacklevel=2,
        )


def make_page(results: Mapping[str, Any]) -> str:
    """The page's HTML.

    Raises:
        ImportError: plotly is not installed.
    """
    require("compare")
    from plotly.offline import get_plotlyjs

    folder = importlib.resources.files(__package__)
    # The data must not contain text that ends a script in a browser.
    data = json.dumps(without_nan(results), separators=(",", ":")).replace("<", "\\u003c")
    script = (folder / "page.js").read_text(encoding="utf-8")
    parts = {"RESULTS": data, "CHARTS": get_plotlyjs(), "SCRIPT": script}
    template = (folder / "page.html").read_text(encoding="utf-8")
    return re.sub("@(RESULTS|CHARTS|SCRIPT)@", lambda match: parts[match[1]], template)


def format_results(results: Mapping[str, Any]) -> str:
    """The metrics, differences and test settings as lines of text."""
    lines = []
    for name, data in results["data"].items():
        lines += [name, format_protocol(data["protocol"]), ""]
        lines += _table(data["detectors"])
        lines += ["", "Differences of AP (first minus second), paired bootstrap"]
        lines += [_difference(row) for row in data["differences"]]
        lines.append("")
    for name, metrics in results["detectors"].items():
        lines += [f"{name} was run with", format_protocol(metrics["protocol"])]
    lines += ["", "Published, not measured here"]
    for row in results["published"]:
        aps = "".join(f"{row[setting]:8.2f}" for setting in _SETTINGS)
        lines.append(f"{row['detector']:<28}{aps}   {row['protocol']} ({row['source']})")
    return "\n".join(lines) + "\n"


def format_markdown(results: Mapping[str, Any]) -> str:
    """One table for each data set, for a README: AP with intervals, time, file size, license."""
    parts = []
    for name, data in results["data"].items():
        headers = ["detector", *_SETTINGS, "ms", "MB", "license"]
        rows = [
            [
                detector.replace("|", r"\|"),
                *(_with_interval(metrics, setting) for setting in _SETTINGS),
                _or_dash(_milliseconds(metrics), ".1f"),
                _or_dash(_megabytes(metrics), ".2f"),
                metrics.get("license", "-"),
            ]
            for detector, metrics in _best_first(data["detectors"])
        ]
        columns = ("left", *["right"] * 5, "left")
        table = tabulate(rows, headers, tablefmt="pipe", colalign=columns, disable_numparse=True)
        protocol = "; ".join(f"{key}: {value}" for key, value in data["protocol"].items())
        parts.append(f"**{name}**\n\n{table}\n\n{protocol}\n")
    return "\n".join(parts)


def _table(detectors: Mapping[str, Mapping[str, Any]]) -> list[str]:
    width = max(map(len, detectors)) + 2
    lines = [f"{'detector':<{width}}{'Easy':>22}{'Medium':>22}{'Hard':>22}{'ms':>9}{'MB':>8}"]
    for name, metrics in _best_first(detectors):
        aps = "".join(_with_interval(metrics, setting).rjust(22) for setting in _SETTINGS)
        timing, size = _milliseconds(metrics), _megabytes(metrics)
        costs = f"{_or_dash(timing, '.1f'):>9}{_or_dash(size, '.2f'):>8}"
        lines.append(f"{name:<{width}}{aps}{costs}")
    return lines


def _best_first(
    detectors: Mapping[str, Mapping[str, Any]],
) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(detectors.items(), key=lambda item: -np.nan_to_num(item[1]["AP_hard"], nan=-1.0))


def _with_interval(metrics: Mapping[str, Any], setting: str) -> str:
    low, high = metrics["interval_95"].get(setting, (None, None))
    between = "" if low is None else f" [{low:.1f}, {high:.1f}]"
    return f"{metrics[f'AP_{setting}']:.2f}{between}"


def _milliseconds(metrics: Mapping[str, Any]) -> float | None:
    return metrics.get("cost", {}).get("threads_1", {}).get("milliseconds")


def _megabytes(metrics: Mapping[str, Any]) -> float | None:
    size = metrics.get("file_bytes")
    return None if size is None else size / 1e6


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _difference(row: Mapping[str, Any]) -> str:
    low, high = row.get("interval_95", (None, None))
    between = "" if low is None else f" [{low:+.2f}, {high:+.2f}]"
    pair = f"{row['first']} - {row['second']}"
    return f"  {row['setting']:<8}{row['difference']:+7.2f}{between}  {pair}"


def _without_pictures(results: Mapping[str, Any]) -> dict[str, Any]:
    data = {
        name: {key: value for key, value in one.items() if key != "pictures"}
        for name, one in results["data"].items()
    }
    return {**results, "data": data}
