"""What a detector costs: operations counted by hand and by torch's own counter."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from face_d2.analysis.cost import count_flops
from face_d2.config import get_cfg, get_config_file


def config(name: str, *overrides: object) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(name))
    cfg.merge_from_list(list(overrides))
    return cfg


def test_lffd_equals_torchs_counter() -> None:
    """LFFD is convolutions alone; torch counts an addition and a multiplication as two."""
    reason = "torch 2.0 does not count operations"
    FlopCounterMode = pytest.importorskip("torch.utils.flop_counter", reason=reason).FlopCounterMode
    model = build_model(config("quick/lffd_synth.yaml")).train()
    counts = count_flops(model, (96, 128))
    assert model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.forward_maps(torch.zeros(1, 3, 96, 128))
    assert counts[""] == counter.get_total_flops() / 2
    assert counts[""] == counts["backbone"] + counts["head"]


def test_head_by_hand() -> None:
    """Four 3x3 convolutions of 16 channels, 6 scores, 24 offsets; no mask at inference."""
    small = ["MODEL.DF2S2.CONV_DIM", 16, "MODEL.FFP.OUT_CHANNELS", 16, "MODEL.DF2S2.NORM", ""]
    model = build_model(config("quick/df2s2_synth.yaml", *small))
    cells = sum((128 // stride) * (256 // stride) for stride in (4, 8, 16, 32, 64, 128))
    per_cell = 9 * 16 * (4 * 16 + 6 + 24)
    assert count_flops(model, (128, 256))["head"] == cells * per_cell
