"""Detectors small enough for any test."""

from __future__ import annotations

from detectron2.config import CfgNode

from face_d2.config import get_cfg, get_config_file

#: Detectron2's keys for a run of a few steps on the CPU.
SHORT_RUN = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "INPUT.MIN_SIZE_TRAIN": (70,),  # no multiple of anything
    "INPUT.MIN_SIZE_TEST": 70,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.BASE_LR": 0.001,
    "DATALOADER.NUM_WORKERS": 0,
    "SEED": 1,
}
#: Keys that make Detectron2's detectors with a second stage small.
SMALL_ROI = {
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
}
#: :func:`tiny_lffd`, as words that override the shipped LFFD's config.
TINY_LFFD = (
    *("MODEL.LFFD.VARIANT", "custom", "MODEL.LFFD.LAYERS", "DD SS DSS"),
    *("MODEL.LFFD.WIDTHS", "[8,8,8,8,8,8,8]", "MODEL.LFFD.TAPS", "['c4','c7']"),
    *("MODEL.LFFD.FACE_RANGES", "[[10,20],[20,40]]", "MODEL.LFFD.BRANCH_CHANNELS", "16"),
    *("INPUT.SCALE_SAMPLING.SMALL_FACE_RULES", "2", "INPUT.SCALE_SAMPLING.SIZE", "64"),
    *("SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu"),
)


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
