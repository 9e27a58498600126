"""Configuration keys of DF2S2. docs/design.md gives reasons for the defaults."""

from __future__ import annotations

from detectron2.config import CfgNode as CN

__all__ = ["add_df2s2_config"]


def add_df2s2_config(cfg: CN) -> None:
    """Adds ``MODEL.FFP``, ``MODEL.TIMM`` and ``MODEL.DF2S2`` to a Detectron2 config, in place."""
    cfg.MODEL.FFP = CN()
    # The stages to fuse, shallow to deep. The stages of timm networks have the same names.
    cfg.MODEL.FFP.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    # Channels of every output, set by a final 1x1 convolution; 0 keeps the native widths.
    cfg.MODEL.FFP.OUT_CHANNELS = 256
    # Normalization of these convolutions, "" for none; "GN" helps to train from scratch.
    cfg.MODEL.FFP.NORM = ""
    # Sides of a batch are padded to a multiple of this. DF2S2 and RetinaNet work with 0. Heads that
    # add levels (Panoptic FPN) need 32, the largest of their strides.
    cfg.MODEL.FFP.SIZE_DIVISIBILITY = 0
    # How maps are fused: "mul_add" (the F-block of arXiv 1811.08557, section 3.3), "mul" or "add".
    # "fpn" is Detectron2's FPN in place of the FFP.
    cfg.MODEL.FFP.FUSION = "mul_add"
    # How Psi resizes the deeper map: "deconv" (arXiv 1811.08557, section 3.3), or "upsample_conv"
    # or "conv_upsample", which the paper argues against.
    cfg.MODEL.FFP.UP = "deconv"
    cfg.MODEL.FFP.DECONV_KERNEL = 2  # kernel size of "deconv", 2 or 4
    cfg.MODEL.FFP.PSI_ACTIVATION = "none"  # activation after Psi, "none" or "sigmoid"
    # Gain of Psi's Xavier initialization. For training from random weights, a small gain (0.1)
    # keeps the products of the maps from overflowing.
    cfg.MODEL.FFP.PSI_INIT_GAIN = 1.0

    # The network of build_timm_ffp_backbone. MODEL.BACKBONE.FREEZE_AT applies to it too. Set
    # MODEL.PIXEL_MEAN, PIXEL_STD and INPUT.FORMAT ("RGB") to fit its weights.
    cfg.MODEL.TIMM = CN()
    # timm's name of the network, for example "tf_efficientnet_lite0".
    cfg.MODEL.TIMM.NAME = ""
    # "": random; "timm": downloaded by timm; a path: a .pth or .safetensors file; "package:NAME":
    # in the installed package NAME. Read only if MODEL.WEIGHTS is empty.
    cfg.MODEL.TIMM.WEIGHTS = ""
    # Replacement for its batch normalization: "BN", "FrozenBN" or "SyncBN".
    cfg.MODEL.TIMM.NORM = "BN"

    cfg.MODEL.DF2S2 = CN()
    # Backbone outputs used for detection; empty means all.
    cfg.MODEL.DF2S2.IN_FEATURES = []
    # Number of convolutions in a tower of the head, and their channels.
    cfg.MODEL.DF2S2.NUM_CONVS = 4
    cfg.MODEL.DF2S2.CONV_DIM = 256
    # Normalization in the towers, "" for none; "GN" helps to train from scratch.
    cfg.MODEL.DF2S2.NORM = ""
    # Branches that share a tower: "all", "det" (segmentation has its own), or "none".
    cfg.MODEL.DF2S2.SHARE_TOWER = "all"
    # Initial score of every location; a low value keeps the first steps of the focal loss stable.
    cfg.MODEL.DF2S2.PRIOR_PROB = 0.01
    # Initial score of every mask pixel. With 0.5, the segmentation loss dominates the first steps.
    cfg.MODEL.DF2S2.SEG_PRIOR_PROB = 0.5
    # Initialization of the last convolution of every branch: "xavier", or "normal" (standard
    # deviation 0.01, as in RetinaNet), with which all outputs start at their priors.
    cfg.MODEL.DF2S2.PREDICTOR_INIT = "xavier"

    # Anchors are background below the first IoU, positive from the second on, and ignored in
    # between.
    cfg.MODEL.DF2S2.IOU_THRESHOLDS = [0.4, 0.5]
    # A face without a positive anchor gets its best anchor if the IoU is at least this (low-quality
    # match); 1.0 turns this off.
    cfg.MODEL.DF2S2.LOW_QUALITY_MIN_IOU = 0.2
    # Number of anchors that such a face gets; anchors of equal IoU are included. S3FD (arXiv
    # 1708.05237, section 3.2) uses the mean number of positive anchors per face.
    cfg.MODEL.DF2S2.LOW_QUALITY_TOPK = 1
    # Training ignores faces whose longer side is below this number of pixels in the network's
    # input: they are neither positive nor background for scores, boxes and masks.
    cfg.MODEL.DF2S2.MIN_FACE = 0.0
    # Weights of the box deltas (x, y, width, height), as in Detectron2.
    cfg.MODEL.DF2S2.BBOX_REG_WEIGHTS = (1.0, 1.0, 1.0, 1.0)

    # Divisor of the classification and box loss: "global_pos" (positives of all levels),
    # "level_pos" (positives of the level), "level_all" (classification: anchors of the level that
    # are not ignored; boxes: its positives; arXiv 1811.08557, section 3.4, read literally), or
    # "running_pos" (running mean of "global_pos"; for small batches and many images without faces).
    cfg.MODEL.DF2S2.CLS_NORM = "global_pos"
    cfg.MODEL.DF2S2.FOCAL_LOSS_ALPHA = 0.25
    cfg.MODEL.DF2S2.FOCAL_LOSS_GAMMA = 2.0
    # Added to the logits in the loss (arXiv 2007.07314), so the learned logits are lower by this
    # value. The order of the detections, and so AP, does not change.
    cfg.MODEL.DF2S2.FOCAL_LOSS_MARGIN = 0.0
    # "smooth_l1" on the box deltas, or "giou", "diou" or "ciou" on the boxes.
    cfg.MODEL.DF2S2.BOX_LOSS = "smooth_l1"
    cfg.MODEL.DF2S2.SMOOTH_L1_BETA = 0.11  # used by "smooth_l1" only
    cfg.MODEL.DF2S2.BOX_WEIGHT = 1.0  # lambda1 of arXiv 1811.08557, section 3.4

    cfg.MODEL.DF2S2.SEG_ENABLED = True
    cfg.MODEL.DF2S2.SEG_WEIGHT = 0.25  # lambda2 of arXiv 1811.08557, section 3.4
    # Faces in the mask of a level: "anchor" (faces with a positive anchor on the level) or "area"
    # (faces whose sqrt(area) is 0.71 to 2.23 times that of the level's smallest anchor).
    cfg.MODEL.DF2S2.SEG_ASSIGN = "anchor"
    # Reduction over the pixels of a level, "mean" or "sum"; levels are always summed.
    cfg.MODEL.DF2S2.SEG_REDUCTION = "mean"

    cfg.MODEL.DF2S2.SCORE_THRESH_TEST = 0.02
    cfg.MODEL.DF2S2.TOPK_CANDIDATES_TEST = 5000  # per level, before NMS
    cfg.MODEL.DF2S2.NMS_THRESH_TEST = 0.5
