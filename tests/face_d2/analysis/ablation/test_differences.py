"""Differences between rows: the paired bootstrap, seed by seed, and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tables import unpadded

from face_d2.analysis.ablation.differences import (
    RESAMPLES,
    differences,
    differences_table,
    resampled_run,
)
from face_d2.analysis.ablation.report import collect, markdown_table
from face_d2.analysis.ablation.suite import Suite
from face_d2.data.wider_face import WiderFaceImage
from face_d2.evaluation.wider_face.files import write_image
from face_d2.evaluation.wider_face.ground_truth import ground_truth_from_images
from face_d2.evaluation.wider_face.protocol import widerface_ap

SUITE = Suite("two", {"base": ("Base", Path("a")), "other": ("Other", Path("b"))}, "Two rows")
SETTINGS = ("easy", "medium", "hard")


def run(row: str, seed: int, ap: float, resampled: np.ndarray | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"row": row, "seed": seed, "iterations": 4, "dataset": "d"}
    entry |= {"settings": {}, "protocol": {}, "device": "CPU", "training_seconds": 60.0}
    entry |= {"parameters": 1, "gflops": 1.0, "flops_size": [1, 1], "ms_per_image": 1.0}
    entry |= {f"AP_{setting}": ap for setting in SETTINGS}
    if resampled is not None:
        entry["resampled"] = {setting: resampled.tolist() for setting in SETTINGS}
    return entry


def test_what_moves_both_rows_does_not_widen_the_interval() -> None:
    """Resamples that shift both rows by up to 20 points leave the noise of 1 point."""
    generator = np.random.default_rng(0)
    shift, noise = 10 * generator.standard_normal((2, RESAMPLES)) * [[1.0], [0.1]]
    base, other = 50 + shift, 55 + shift + noise
    results = {"base": [run("base", 0, 50.0, base)], "other": [run("other", 0, 55.0, other)]}
    (hard,) = [entry for entry in differences(SUITE, results) if entry["setting"] == "hard"]
    assert hard["difference"] == pytest.approx(5.0)
    low, high = hard["interval_95"]
    assert low == pytest.approx(5 - 1.96, abs=0.3)
    assert high == pytest.approx(5 + 1.96, abs=0.3)
    assert hard["by_seed"] == [5.0]


def test_only_seeds_that_both_rows_have_count() -> None:
    flat = np.zeros(RESAMPLES)
    results = {
        "base": [run("base", 0, 50.0, flat + 50), run("base", 1, 52.0, flat + 52)],
        "other": [run("other", seed, 50.0 + 3 * seed, flat + 50 + 3 * seed) for seed in (0, 1, 2)],
    }
    for entry in differences(SUITE, results):
        assert entry["difference"] == pytest.approx(51.5 - 51.0)
        assert entry["interval_95"] == pytest.approx([0.5, 0.5])
        assert entry["by_seed"] == [0.0, 1.0]  # seed 2 has no partner
    results["other"] = [run("other", 2, 56.0, flat + 56)]
    assert differences(SUITE, results) == []


def test_rows_without_resamples_have_no_differences() -> None:
    flat = np.full(RESAMPLES, 50.0)
    old = {"base": [run("base", 0, 50.0)], "other": [run("other", 0, 50.0, flat)]}
    assert differences(SUITE, old) == []
    assert differences_table(SUITE, old) == ""
    assert "minus" not in markdown_table(SUITE, old)
    alone = {"base": [run("base", 0, 50.0, flat)]}
    assert differences_table(SUITE, alone) == ""


def test_the_table_has_interval_and_seeds(tmp_path: Path) -> None:
    flat = np.zeros(RESAMPLES)
    for row, ap in (("base", 50.0), ("other", 48.5)):
        for seed in (0, 1):
            entry = run(row, seed, ap + seed, flat + ap + seed)
            (tmp_path / f"{row}-seed{seed}.json").write_text(json.dumps(entry))
    text = unpadded(markdown_table(SUITE, collect(SUITE, tmp_path)))
    assert "| minus 'Base' | easy | medium | hard |" in text
    cell = "-1.5 [-1.5, -1.5] (-1.5 / -1.5)"
    assert f"| Other | {cell} | {cell} | {cell} |" in text


def test_resamples_of_a_run_are_those_of_its_interval(tmp_path: Path) -> None:
    """The quantiles of the stored APs are the interval that the evaluation gives."""
    generator = np.random.default_rng(1)
    images, rows = [], {}
    for number in range(30):
        faces = np.array([[10.0, 10.0, 60.0, 60.0], [100.0, 20.0, 80.0, 90.0]])
        name = f"0--Event/{number}"
        images.append(WiderFaceImage(f"{name}.jpg", faces, np.zeros((2, 6), np.int64)))
        found = faces[generator.random(2) < 0.7]
        wrong = np.array([[300.0, 300.0, 50.0, 50.0]])
        boxes = np.concatenate([found, wrong])
        rows[name] = np.column_stack([boxes, generator.uniform(0.1, 1, len(boxes))])
        write_image(tmp_path, name, rows[name])
    truth = ground_truth_from_images(images, "made here")
    stored = resampled_run(tmp_path, truth)
    interval = widerface_ap(tmp_path, truth, bootstrap=RESAMPLES).intervals["hard"]
    assert len(stored["hard"]) == RESAMPLES
    values = np.array(stored["hard"], np.float64)
    assert np.quantile(values, [0.025, 0.975]) == pytest.approx(100 * np.array(interval), abs=0.1)
    assert np.ptp(values) > 5
