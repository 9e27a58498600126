"""A small LFFD for tests."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from face_d2.config import get_cfg, get_config_file
from lffd_d2 import LFFD


@pytest.fixture
def tiny_cfg() -> CfgNode:
    """Config of a custom LFFD with two branches, RFs 23 and 63, for faces of 10-20 and 20-40."""
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("lffd/lffd_25L8S.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.LFFD.VARIANT = "custom"
    cfg.MODEL.LFFD.LAYERS = "DD SS DSS"
    cfg.MODEL.LFFD.WIDTHS = [8] * 7
    cfg.MODEL.LFFD.TAPS = ["c4", "c7"]
    cfg.MODEL.LFFD.FACE_RANGES = [[10, 20], [20, 40]]
    cfg.MODEL.LFFD.BRANCH_CHANNELS = 16
    cfg.INPUT.SCALE_SAMPLING.SIZE = 64
    cfg.INPUT.SCALE_SAMPLING.FACE_RANGES = [[10, 20], [20, 40]]
    cfg.INPUT.SCALE_SAMPLING.STRIDES = [4, 8]
    cfg.INPUT.SCALE_SAMPLING.SMALL_FACE_RULES = 2
    return cfg


@pytest.fixture
def tiny_model(tiny_cfg: CfgNode) -> LFFD:
    """The model of ``tiny_cfg``, in evaluation mode, the same weights every time."""
    torch.manual_seed(0)
    return build_model(tiny_cfg).eval()
