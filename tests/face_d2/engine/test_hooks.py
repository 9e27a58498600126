"""The best checkpoint, where figures and what was kept before do not fit ``TEST.BEST_METRIC``."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from face_d2.engine.hooks import BestCheckpoint


def _evaluated(folder: Path, metric: str, figure: str, value: float, iteration: int) -> None:
    """What the hook does in a run, resumed if not at 0, that has evaluated ``figure``."""
    keeper = BestCheckpoint(torch.nn.Linear(1, 1), folder, metric)
    storage = SimpleNamespace(latest=lambda: {figure: (value, iteration), "total_loss": (1.0, 0)})
    keeper.trainer = SimpleNamespace(start_iter=iteration, storage=storage)
    keeper.before_train()
    keeper.after_step()


def test_a_checkpoint_of_another_metric_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _evaluated(tmp_path, "bbox/AP", "bbox/AP", 9.0, 0)
    _evaluated(tmp_path, "bbox/AP50", "bbox/AP50", 8.0, 1)
    assert torch.load(tmp_path / "model_best.pth", weights_only=True)["bbox/AP50"] == 8.0
    assert "kept for another TEST.BEST_METRIC" in caplog.text


@pytest.mark.parametrize("figure", ["bbox/AP", "fddb/disc@1000", "my_set/fddb/cont@1000"])
def test_a_metric_that_was_not_evaluated_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, figure: str
) -> None:
    _evaluated(tmp_path, "widerface/AP_hard", figure, 50.0, 1)
    assert caplog.text.count("widerface/AP_hard is not among the evaluated metrics") == 1


def test_a_step_without_evaluation_reports_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _evaluated(tmp_path, "widerface/AP_hard", "fast_rcnn/cls_accuracy", 0.5, 1)
    assert caplog.text == ""
