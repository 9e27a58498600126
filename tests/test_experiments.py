"""The tables of docs/experiments.md have the recorded figures."""

from __future__ import annotations

from pathlib import Path

from face_d2.analysis.ablation.differences import differences
from face_d2.analysis.ablation.report import collect
from face_d2.analysis.ablation.suite import read_suite


def test_the_pretrained_suite(repo: Path) -> None:
    text = (repo / "docs" / "experiments.md").read_text(encoding="utf-8")
    suite = read_suite("pretrained")
    results = collect(suite, repo / "benchmarks" / "results" / "ablation_pretrained.jsonl")
    assert len(results) >= 5
    gaps = {(gap["row"], gap["setting"]): gap for gap in differences(suite, results)}
    for row, (run,) in results.items():  # one seed
        cells = [f"{run[f'AP_{setting}']:.1f}" for setting in ("easy", "medium", "hard")]
        for setting in ("medium", "hard"):
            gap = gaps.get((row, setting))
            low, high = gap["interval_95"] if gap else (0, 0)
            cells.append(f"{gap['difference']:+.1f} [{low:+.1f}, {high:+.1f}]" if gap else "")
        cells.append(f"{run['gflops']:.2f}")
        assert f"| {suite.rows[row][0]} | {' | '.join(cells)} |" in text
