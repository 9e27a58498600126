"""Configuration keys of DF2S2. The defaults are those of the README's table of defaults."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import CfgNode as CN

__all__ = ["add_df2s2_config"]


def add_df2s2_config(cfg: CfgNode) -> None:
    """Adds ``MODEL.FFP``, ``MODEL.TIMM`` and ``MODEL.DF2S2`` to a Detectron2 config, in place."""
    cfg.MODEL.FFP = CN()
    # The stages that are fused, shallow to deep; a timm network's have these names too.
    cfg.MODEL.FFP.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    # Width of every output by a closing 1x1 convolution; 0 keeps the native widths.
    cfg.MODEL.FFP.OUT_CHANNELS = 256
    # Normalisation of those convolutions, "" for none; "GN" helps a network trained from scratch.
    cfg.MODEL.FFP.NORM = ""
    # Sides of a batch are padded to a multiple of this. 0 is right for DF2S2 and RetinaNet; heads
    # that add up levels, Panoptic FPN's, need the deepest stride of these, 32.
    cfg.MODEL.FFP.SIZE_DIVISIBILITY = 0
    # "mul_add" (the notes' F-block), "mul", "add"; "fpn" is Detectron2's own FPN.
    cfg.MODEL.FFP.FUSION = "mul_add"
    # How the deeper map reaches the shallower one's size and width: "deconv" (the notes),
    # "upsample_conv", "conv_upsample" (the two that the notes argue against).
    cfg.MODEL.FFP.UP = "deconv"
    cfg.MODEL.FFP.DECONV_KERNEL = 2  # or 4
    cfg.MODEL.FFP.PSI_ACTIVATION = "none"  # or "sigmoid"
    # Gain of Psi's Xavier initialisation; from random weights a small one (0.1) keeps the products
    # of the first steps from exploding.
    cfg.MODEL.FFP.PSI_INIT_GAIN = 1.0

    # The network of build_timm_ffp_backbone. MODEL.BACKBONE.FREEZE_AT counts its stages as a
    # ResNet's; MODEL.PIXEL_MEAN, PIXEL_STD and INPUT.FORMAT ("RGB" for timm's) are the config's.
    cfg.MODEL.TIMM = CN()
    # timm's name of the network, for example "tf_efficientnet_lite0".
    cfg.MODEL.TIMM.NAME = ""
    # "" random, "timm" timm's own (fetched by timm), a file (.pth, .safetensors), "package:NAME"
    # those of the installed package NAME. Read only where MODEL.WEIGHTS is empty.
    cfg.MODEL.TIMM.WEIGHTS = ""
    # What its batch normalization becomes: "BN", "FrozenBN" or "SyncBN".
    cfg.MODEL.TIMM.NORM = "BN"

    cfg.MODEL.DF2S2 = CN()
    # Backbone outputs to detect on; empty means all.
    cfg.MODEL.DF2S2.IN_FEATURES = []
    cfg.MODEL.DF2S2.NUM_CONVS = 4
    cfg.MODEL.DF2S2.CONV_DIM = 256
    # Normalisation in the towers, "" for none; "GN" helps a network trained from scratch.
    cfg.MODEL.DF2S2.NORM = ""
    # Which branches share the tower: "all", "det" (segmentation has its own), "none".
    cfg.MODEL.DF2S2.SHARE_TOWER = "all"
    # Score every location starts with, which keeps the first steps of the focal loss stable.
    cfg.MODEL.DF2S2.PRIOR_PROB = 0.01

    # Anchors below the first IoU are background, from the second on positive, between ignored.
    cfg.MODEL.DF2S2.IOU_THRESHOLDS = [0.4, 0.5]
    # A face without a positive anchor gets its best one from this IoU on; 1.0 turns that off.
    cfg.MODEL.DF2S2.LOW_QUALITY_MIN_IOU = 0.2
    cfg.MODEL.DF2S2.BBOX_REG_WEIGHTS = (1.0, 1.0, 1.0, 1.0)

    # "global_pos" (positives of all levels), "level_pos", "level_all" (the notes' letter),
    # "running_pos" (running mean over iterations; for small batches and many face-free images).
    cfg.MODEL.DF2S2.CLS_NORM = "global_pos"
    cfg.MODEL.DF2S2.FOCAL_LOSS_ALPHA = 0.25
    cfg.MODEL.DF2S2.FOCAL_LOSS_GAMMA = 2.0
    # Added to the logits in the loss: above 0 a score of 0.5 asks for more certainty, AP stays.
    cfg.MODEL.DF2S2.FOCAL_LOSS_MARGIN = 0.0
    cfg.MODEL.DF2S2.SMOOTH_L1_BETA = 0.11
    cfg.MODEL.DF2S2.BOX_WEIGHT = 1.0  # lambda1 of the notes

    cfg.MODEL.DF2S2.SEG_ENABLED = True
    cfg.MODEL.DF2S2.SEG_WEIGHT = 0.25  # lambda2 of the notes
    # Which faces a level's mask shows: "anchor" (they own one of its positive anchors) or "area"
    # (their side is 0.71 to 2.23 times the level's smallest anchor).
    cfg.MODEL.DF2S2.SEG_ASSIGN = "anchor"
    # Over the pixels of a level: "mean" or "sum". Levels are added up.
    cfg.MODEL.DF2S2.SEG_REDUCTION = "mean"

    cfg.MODEL.DF2S2.SCORE_THRESH_TEST = 0.02
    cfg.MODEL.DF2S2.TOPK_CANDIDATES_TEST = 5000  # per level, before NMS
    cfg.MODEL.DF2S2.NMS_THRESH_TEST = 0.5
