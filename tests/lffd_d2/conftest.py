"""A small LFFD for tests."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from helpers.tiny_configs import tiny_lffd

from lffd_d2 import LFFD


@pytest.fixture
def tiny_cfg() -> CfgNode:
    """Config of a custom LFFD with two branches, RFs 23 and 63, for faces of 10-20 and 20-40."""
    cfg = tiny_lffd()
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.SCALE_SAMPLING.SIZE = 64
    return cfg


@pytest.fixture
def tiny_model(tiny_cfg: CfgNode) -> LFFD:
    """The model of ``tiny_cfg``, in evaluation mode, the same weights every time."""
    torch.manual_seed(0)
    return build_model(tiny_cfg).eval()
