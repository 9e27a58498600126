"""A small LFFD for tests, and what must be imported before Detectron2."""

import lffd_d2  # isort: skip  (mends Detectron2 before the test modules import it)

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from face_d2.config import add_face_config


@pytest.fixture
def tiny_cfg():
    """Config of a custom LFFD with two branches, RFs 23 and 63, for faces of 10-20 and 20-40."""
    cfg = get_cfg()
    add_face_config(cfg)
    lffd_d2.add_lffd_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "LFFD"
    cfg.MODEL.BACKBONE.NAME = "build_lffd_backbone"
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [127.5, 127.5, 127.5]
    cfg.MODEL.LFFD.VARIANT = "custom"
    cfg.MODEL.LFFD.LAYERS = "DD SS DSS"
    cfg.MODEL.LFFD.WIDTHS = [8] * 7
    cfg.MODEL.LFFD.TAPS = ["c4", "c7"]
    cfg.MODEL.LFFD.FACE_RANGES = [[10, 20], [20, 40]]
    cfg.MODEL.LFFD.BRANCH_CHANNELS = 16
    cfg.INPUT.SCALE_SAMPLING.FACE_RANGES = [[10, 20], [20, 40]]
    cfg.INPUT.SCALE_SAMPLING.STRIDES = [4, 8]
    cfg.INPUT.SCALE_SAMPLING.SMALL_FACE_RULES = 2
    return cfg


@pytest.fixture
def tiny_model(tiny_cfg):
    """The model of ``tiny_cfg``, in evaluation mode."""
    return build_model(tiny_cfg).eval()
