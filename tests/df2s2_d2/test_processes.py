from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.multiprocessing as mp
from processes import gradients

from df2s2_d2.losses import CLS_NORMS


def test_gradients_of_two_processes_are_those_of_the_whole_batch(
    tiny_cfg: Callable[..., object], tmp_path: Path
) -> None:
    # Batch statistics are a process's own; nothing else may depend on how images are shared out.
    frozen = ("MODEL.RESNETS.NORM", "FrozenBN")
    cfgs = [tiny_cfg(*frozen, "MODEL.DF2S2.CLS_NORM", norm) for norm in CLS_NORMS]
    two_levels = ("MODEL.DF2S2.IN_FEATURES", ["ffp2", "ffp3"])
    cfgs.append(tiny_cfg(*frozen, *two_levels, "MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32]]))
    mp.spawn(gradients.gradients_of_half, (cfgs, str(tmp_path)), nprocs=2)
    for cfg, (_, shared) in zip(cfgs, torch.load(tmp_path / "0.pt")):
        whole = gradients.gradients(cfg, gradients.batch(), parallel=False)
        assert shared.keys() == whole.keys()
        for name, gradient in whole.items():
            scale = float(gradient.abs().max())
            assert float((shared[name] - gradient).abs().max()) <= 1e-5 * max(scale, 1), name
