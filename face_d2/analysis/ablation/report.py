"""The table and the plot of a suite, from the results of its finished runs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from face_d2.analysis.ablation.differences import Results, differences_table
from face_d2.analysis.ablation.suite import Suite
from face_d2.evaluation.wider_face.ground_truth import SETTINGS
from face_d2.utils.files import write_text
from face_d2.visualization.style import COLORS, STYLE, save_figure

__all__ = ["collect", "markdown_table", "plot_suite", "write_results"]

_HEADER = (
    *("", "seeds", *SETTINGS),
    *("parameters, M", "GFLOPs", "ms an image", "training, min"),
)


def collect(suite: Suite, source: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Reads the finished runs of a suite.

    Args:
        suite: the suite, whose rows are read.
        source: a folder of files ``ROW-seedN.json``, or a JSON Lines file with one run per line.

    Returns:
        Row -> results in the order of seeds; rows without a finished run are left out.

    Raises:
        OSError: the JSON Lines file cannot be read.
        ValueError: a file is not a result, the results are of different data sets, or the runs of a
            row have different numbers of iterations.
    """
    source = Path(source)
    if source.suffix == ".jsonl":
        lines = source.read_text(encoding="utf-8").splitlines()
        runs = [_parse(line, f"{source}, line {number}") for number, line in enumerate(lines, 1)]
    else:
        files = (file for row in suite.rows for file in source.glob(f"{row}-seed*.json"))
        runs = [_parse(file.read_text(encoding="utf-8"), str(file)) for file in files]
    results: dict[str, list[dict[str, Any]]] = {}
    for row in suite.rows:
        found = [run for run in runs if run["row"] == row]
        if found:
            results[row] = sorted(found, key=lambda run: run["seed"])
    _check_equal("dataset", [run for runs in results.values() for run in runs])
    for runs in results.values():
        _check_equal("iterations", runs)
    return results


def write_results(results: Results, path: str | Path) -> None:
    """Writes the finished runs of a suite as JSON Lines, which :func:`collect` reads."""
    lines = [json.dumps(run, ensure_ascii=False) for runs in results.values() for run in runs]
    write_text("".join(f"{line}\n" for line in lines), path)


def markdown_table(suite: Suite, results: Results) -> str:
    """Mean and sample standard deviation over seeds, in Markdown, with the conditions.

    A second table has the differences from the first row, if the runs have resampled APs.
    """
    rows = []
    for row, (label, _) in suite.rows.items():
        runs = results.get(row, [])
        if not runs:
            rows.append([label, "0", *["-"] * (len(_HEADER) - 2)])
            continue
        cells = [_spread([run[f"AP_{setting}"] for run in runs]) for setting in SETTINGS]
        cells += [f"{runs[0]['parameters'] / 1e6:.2f}", f"{runs[0]['gflops']:.2f}"]
        cells.append(f"{statistics.median(run['ms_per_image'] for run in runs):.1f}")
        seconds = [s for run in runs if (s := run["training_seconds"]) is not None]
        cells.append(f"{statistics.mean(seconds) / 60:.1f}" if seconds else "-")
        rows.append([label, str(len(runs)), *cells])
    table = tabulate(rows, _HEADER, "github", disable_numparse=True)
    text = "\n".join([f"# {suite.title}", "", table, "", *_notes(results)]) + "\n"
    compared = differences_table(suite, results)
    return f"{text}\n{compared}" if compared else text


def plot_suite(suite: Suite, results: Results, path: str | Path) -> list[Path]:
    """Plots the AP of every run as a point, their mean as a bar, and their standard deviation as a
    line.

    Args:
        suite: determines order and labels.
        results: the result of :func:`collect`.
        path: the file to write; the suffix is replaced by ``.png`` and ``.svg``.

    Returns:
        The written files.

    Raises:
        ValueError: no run is finished.
    """
    if not results:
        raise ValueError(f"suite {suite.name}: no run is finished; there is nothing to plot.")
    rows = [row for row in suite.rows if row in results]
    at = np.arange(len(rows))[::-1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 1.3 + 0.36 * len(rows)), layout="constrained")
        panels = figure.subplots(1, len(SETTINGS), sharey=True)
        for axes, setting, color in zip(panels, SETTINGS, COLORS):
            key = f"AP_{setting}"
            values = [[np.nan if r[key] is None else r[key] for r in results[row]] for row in rows]
            means = [np.mean(row) for row in values]
            spread = [np.std(row, ddof=1) if len(row) > 1 else np.nan for row in values]
            axes.barh(at, means, height=0.62, color=color, alpha=0.35)
            axes.errorbar(means, at, xerr=spread, fmt="none", ecolor="#444444", capsize=3)
            for place, points in zip(at, values):
                axes.plot(points, [place] * len(points), "o", color=color, markersize=4)
            axes.set(title=setting.capitalize(), xlabel="AP")
            axes.set_xlim(left=0)
            axes.grid(axis="y", visible=False)
        panels[0].set_yticks(at, [suite.rows[row][0] for row in rows])
        figure.supxlabel("; ".join(_notes(results)[:1]), fontsize=7, color="#666666")
        return save_figure(figure, path)


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        result = json.loads(text)
        missing = {"row", "seed", "dataset", "settings", "AP_hard"} - result.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{where}: not the result of a run ({error}).") from error
    if missing:
        raise ValueError(f"{where}: not the result of a run, {', '.join(sorted(missing))} missing.")
    return result


def _check_equal(key: str, runs: Sequence[Mapping[str, Any]]) -> None:
    for run in runs:
        if run[key] != runs[0][key]:
            raise ValueError(
                f"{runs[0]['row']} seed {runs[0]['seed']} has {key} {runs[0][key]}, {run['row']} "
                f"seed {run['seed']} has {run[key]}; they do not belong into one table."
            )


def _spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation; the AP of a setting without faces is null in JSON."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    mean = f"{statistics.mean(numbers):.1f}"
    return f"{mean} ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else mean


def _notes(results: Results) -> list[str]:
    """The conditions of the measurement; the first line is short enough for a plot."""
    runs = [run for row in results.values() for run in row]
    if not runs:
        return ["No run is finished."]
    iterations = sorted({run["iterations"] for run in runs})
    count = " or ".join(f"{n:,}" for n in iterations)
    truth = "; ".join(sorted({run["protocol"].get("ground truth", "") for run in runs} - {""}))
    height, width = runs[0]["flops_size"]
    return [
        f"WIDER FACE AP on {runs[0]['dataset']}{f' ({truth})' if truth else ''}, in percent; "
        f"{count} iterations.",
        "Mean and sample standard deviation over seeds. GFLOPs: 10^9 multiply-adds of one "
        f"{width} x {height} image at inference. Parameters include what only training uses.",
        f"Time was taken on: {'; '.join(sorted({run['device'] for run in runs}))}.",
    ]
