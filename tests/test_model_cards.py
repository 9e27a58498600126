"""The model cards say what was recorded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from face_d2.pretrained import PRETRAINED


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_card_has_the_recorded_figures(
    repo: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The cards are written by tools/model_cards.py, and the zoo gives the same AP."""
    monkeypatch.syspath_prepend(str(repo / "tools"))
    monkeypatch.delitem(sys.modules, "model_cards", raising=False)
    from model_cards import card

    model = PRETRAINED[name]
    assert card(name) == model.card.read_text(encoding="utf-8")
    record = json.loads((repo / "benchmarks/results/shipped_detectors.json").read_text())[name]
    recorded = tuple(round(record[f"AP_{setting}"], 1) for setting in ("easy", "medium", "hard"))
    assert model.average_precision == recorded
    zoo = (repo / "docs" / "model_zoo.md").read_text(encoding="utf-8")
    assert f"| {' / '.join(map(str, recorded))} | [{name}](models/{name}.md) |" in zoo
    compared = json.loads((repo / "benchmarks/results/compare_fold.json").read_text())
    assert compared["detectors"][name]["AP_hard"] == record["AP_hard"]
