"""A loss that is infinite or NaN in one of two processes stops both, and its own step is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage
from processes import broken_losses

from face_d2 import train_net
from face_d2.engine.launch import launch
from face_d2.engine.replay import load_batch
from face_d2.engine.trainer import FaceTrainer

BF16 = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16")


@pytest.mark.parametrize(
    ("config", "broken", "settings"),
    [("lffd", (1,), ()), ("df2s2", (0, 1), BF16)],
)
def test_every_process_stops_before_it_steps(
    words: Callable[..., list[str]],
    small_set: Path,
    tmp_path: Path,
    config: str,
    broken: tuple[int, ...],
    settings: tuple[object, ...],
) -> None:
    quiet = ("DATASETS.TEST", (), "TEST.BEST_METRIC", "")
    line = words(*quiet, *settings, flags=("--num-processes", "2"), config=config)
    args = train_net.parser().parse_args(line)
    args.small_set, args.folder, args.broken = small_set, tmp_path, broken
    launch(broken_losses.train, args)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    dumps = sorted((tmp_path / "run").glob("nonfinite_*"))
    names = [f"nonfinite_{broken_losses.BROKEN:07d}_rank{rank}.pth" for rank in broken]
    assert [dump.name for dump in dumps] == names
    for result in results:
        assert result["iteration"] == broken_losses.BROKEN
        for rank, dump in enumerate(results):
            named = [file in result["said"] for file in dump["files"]]
            assert named == [rank in broken] * len(named)
        assert all(str(dump) in result["said"] for dump in dumps)
    for rank, dump in zip(broken, dumps):
        batch, weights = load_batch(dump)
        assert [item["file_name"] for item in batch] == results[rank]["files"]
        for result in results:  # nobody has stepped
            assert all(torch.equal(weights[name], w) for name, w in result["weights"].items())
        model = FaceTrainer.build_model(train_net.load_cfg(args))
        model.load_state_dict(weights)
        with EventStorage():
            assert not torch.isfinite(sum(model.train()(batch).values()))
