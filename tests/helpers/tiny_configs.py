"""Detectors small enough for any test."""

from __future__ import annotations

from detectron2.config import CfgNode

from face_d2.config import get_cfg, get_config_file


def tiny_lffd() -> CfgNode:
    """Two branches, for faces of 10-20 and 20-40 pixels."""
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("lffd/lffd_25L8S.yaml"))
    cfg.MODEL.LFFD.VARIANT = "custom"
    cfg.MODEL.LFFD.LAYERS = "DD SS DSS"
    cfg.MODEL.LFFD.WIDTHS = [8] * 7
    cfg.MODEL.LFFD.TAPS = ["c4", "c7"]
    cfg.MODEL.LFFD.FACE_RANGES = [[10, 20], [20, 40]]
    cfg.MODEL.LFFD.BRANCH_CHANNELS = 16
    cfg.INPUT.SCALE_SAMPLING.SMALL_FACE_RULES = 2
    return cfg
