"""Small DF2S2 models for tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def tiny_cfg() -> Callable[..., object]:
    """A function giving the quick config shrunk further, with KEY, VALUE overrides."""
    from face_d2.config import get_cfg, get_config_file

    def build(*overrides: object, base: str = "quick/df2s2_synth.yaml") -> object:
        cfg = get_cfg()
        cfg.merge_from_file(get_config_file(base))
        cfg.merge_from_list(
            [
                *("MODEL.DF2S2.CONV_DIM", 8, "MODEL.FFP.OUT_CHANNELS", 8, "MODEL.DF2S2.NORM", ""),
                *("MODEL.DF2S2.CLS_NORM", "global_pos", "MODEL.DF2S2.FOCAL_LOSS_ALPHA", 0.25),
                *("MODEL.DF2S2.BOX_WEIGHT", 1.0, "MODEL.DF2S2.SEG_WEIGHT", 0.25),
            ]
        )
        cfg.merge_from_list(list(overrides))
        return cfg

    return build


@pytest.fixture
def tiny_model(tiny_cfg: Callable[..., object]) -> Callable[..., nn.Module]:
    """A function building such a model, the same weights every time."""
    from detectron2.modeling import build_model

    def build(*overrides: object, base: str = "quick/df2s2_synth.yaml") -> nn.Module:
        torch.manual_seed(0)
        return build_model(tiny_cfg(*overrides, base=base))

    return build
