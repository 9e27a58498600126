"""The tables of docs/experiments.md have the recorded results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from face_d2.analysis.ablation.differences import differences
from face_d2.analysis.ablation.report import collect
from face_d2.analysis.ablation.suite import read_suite


@pytest.mark.parametrize(
    ("name", "rows", "with_cost"),
    [
        ("pretrained", 6, True),
        ("recommended", 4, False),
        ("batch_norm", 4, False),
        ("df2s2_keys", 14, False),
        ("lffd_keys", 5, False),
    ],
)
def test_the_tables_of_the_suites(repo: Path, name: str, rows: int, with_cost: bool) -> None:
    """APs of all seeds, and the differences from the first row."""
    text = (repo / "docs" / "experiments.md").read_text(encoding="utf-8")
    suite = read_suite(name)
    results = collect(suite, repo / "benchmarks" / "results" / f"ablation_{name}.jsonl")
    assert len(results) >= rows
    gaps = {(gap["row"], gap["setting"]): gap for gap in differences(suite, results)}
    for row, runs in results.items():
        cells = [
            " / ".join(f"{run[f'AP_{setting}']:.1f}" for run in runs)
            for setting in ("easy", "medium", "hard")
        ]
        for setting in ("medium", "hard"):
            if gap := gaps.get((row, setting)):
                low, high = gap["interval_95"]
                seeds = " / ".join(f"{seed:+.1f}" for seed in gap["by_seed"])
                seeds = f" ({seeds})" if len(gap["by_seed"]) > 1 else ""
                cells.append(f"{gap['difference']:+.1f} [{low:+.1f}, {high:+.1f}]{seeds}")
            else:
                cells.append("")
        cells += [f"{runs[0]['gflops']:.2f}"] if with_cost else []
        assert f"| {suite.rows[row][0]} | {' | '.join(cells)} |" in text


def test_the_large_false_boxes(repo: Path) -> None:
    """The rank correlation is that of the recorded counts, which are those of the suites."""
    recorded = json.loads((repo / "benchmarks" / "results" / "false_boxes.json").read_text())
    networks = recorded["networks"].values()
    aps, counts = ([row[key] for row in networks] for key in ("AP_hard", "large"))
    assert spearmanr(aps, counts).statistic == pytest.approx(recorded["rank_correlation"])
    text = (repo / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert f"The rank correlation is {recorded['rank_correlation']:.2f};" in text
    suite_aps = {
        run["AP_hard"]
        for name in ("pretrained", "batch_norm")
        for runs in collect(
            read_suite(name), repo / "benchmarks" / "results" / f"ablation_{name}.jsonl"
        ).values()
        for run in runs
    }
    assert sorted(aps) == pytest.approx(sorted(suite_aps))


def test_the_variation_of_the_stages(repo: Path) -> None:
    text = (repo / "docs" / "experiments.md").read_text(encoding="utf-8")
    recorded = json.loads((repo / "benchmarks" / "results" / "stage_variation.json").read_text())
    for name, stages in recorded.items():
        cells = " | ".join(f"{value:.2f}" for value in stages.values())
        assert f"| {name} | {cells} |" in text
