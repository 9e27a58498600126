"""docs/hiding.md and the model cards have the recorded figures and the thresholds in use."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from face_d2.analysis.hiding import format_hiding
from face_d2.pretrained import PRETRAINED

MOST_OFF_FACES = 0.10


@pytest.fixture
def page(repo: Path) -> str:
    return (repo / "docs" / "hiding.md").read_text(encoding="utf-8")


def recorded(repo: Path, name: str) -> dict[str, Any]:
    return json.loads((repo / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def point(results: dict[str, Any], detector: str, threshold: float) -> dict[str, Any]:
    points = results["detectors"][detector]["thresholds"]
    return next(point for point in points if point["threshold"] == threshold)


def test_the_tables_are_those_of_the_recorded_result(repo: Path, page: str) -> None:
    results = recorded(repo, "hiding_fold.json")
    tables = [part for part in format_hiding(results).split("\n\n") if part.startswith("|")]
    assert len(tables) == 3
    assert [table.strip() in page for table in tables] == [True] * 3
    assert "638 photographs with 7,926 faces" in page
    assert (results["photographs"], results["faces"]) == (638, 7926)
    assert "less than 75 %" in page
    assert results["settings"]["covered"] == 0.75
    assert "widened by\n  15 %" in page
    assert results["settings"]["margin"] == 0.15


def test_the_recommended_thresholds_follow_the_rule_that_the_page_states(repo: Path) -> None:
    """On photographs that are not those of the report."""
    chosen = recorded(repo, "hiding_choice.json")
    assert chosen["data"].startswith("widerface_train")
    for name, model in PRETRAINED.items():
        points = chosen["detectors"][name]["thresholds"]
        fitting = [p["threshold"] for p in points if p["off_faces"] <= MOST_OFF_FACES]
        assert model.hiding_threshold == min(fitting)


@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize("result", ["hiding_fold.json", "hiding_choice.json"])
def test_the_figures_are_those_of_the_shipped_file(name: str, result: str, repo: Path) -> None:
    digest = hashlib.sha256(PRETRAINED[name].onnx.read_bytes()).hexdigest()
    measured = recorded(repo, result)["detectors"][name]["protocol"]["file"]
    assert measured == f"{name}.onnx, sha256 {digest[:12]}"


@pytest.mark.parametrize("name", PRETRAINED)
def test_page_and_cards_state_the_threshold_and_what_it_leaves(
    name: str, repo: Path, page: str
) -> None:
    threshold = PRETRAINED[name].hiding_threshold
    figures = point(recorded(repo, "hiding_fold.json"), name, threshold)["faces"][">= 20 px"]
    share = f"{100 * figures['share']:.1f} %"
    assert f"{share} ({name} at {threshold:g})" in page
    low, high = figures["interval_95"]
    for card in (repo / "docs" / "models" / f"{name}.md", PRETRAINED[name].card):
        text = card.read_text(encoding="utf-8").split("## Hiding faces")[1].split("\n## ")[0]
        assert f"**{threshold:g}**" in text
        assert f"It leaves {share}" in text
        assert f"95 % interval {100 * low:.1f} - {100 * high:.1f};" in text
    predict = (repo / "docs" / "predict.md").read_text(encoding="utf-8")
    assert f"{name} {threshold:g}" in predict


def test_the_commands_of_the_page_are_understood(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take minutes to hours; tests/face_d2/analysis/test_hiding.py runs the command."""
    from face_d2.cli import hiding, predict

    understood = []
    monkeypatch.setattr(hiding, "run", lambda work: understood.append(work) or 0)
    blocks = re.findall(r"^```\n(.*?)^```", page, re.M | re.S)
    for line in "".join(blocks).splitlines():
        words = [word for word in shlex.split(line) if not word.startswith("DETECTRON2_DATASETS=")]
        if words[0] == "face-d2-evaluate":
            assert hiding.hiding_main(words[2:]) == 0
        elif words[0] == "face-d2-predict":
            understood.append(predict.parser().parse_args(words[1:]))
    assert len(understood) == 5
