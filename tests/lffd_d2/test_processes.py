from __future__ import annotations

from pathlib import Path

import torch
import torch.multiprocessing as mp
from detectron2.config import CfgNode
from processes import gradients


def test_gradients_of_two_processes_are_the_mean_of_their_objectives(
    tiny_cfg: CfgNode, tmp_path: Path
) -> None:
    """One process has faces of the first branch alone, the other of the second alone."""
    mp.spawn(gradients.gradients_of_half, ([tiny_cfg], str(tmp_path)), nprocs=2)
    ((own_0, shared_0),), ((own_1, shared_1),) = (torch.load(tmp_path / f"{i}.pt") for i in (0, 1))
    assert own_0.keys() == shared_0.keys() == own_1.keys()
    for name, gradient in shared_0.items():
        mean = (own_0[name] + own_1[name]) / 2
        assert torch.equal(gradient, shared_1[name]), name
        scale = float(mean.abs().max())
        assert float((gradient - mean).abs().max()) <= 1e-5 * max(scale, 1), name
    assert any(float((own_0[name] - own_1[name]).abs().max()) > 1e-4 for name in own_0)
