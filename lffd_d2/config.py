"""Configuration keys of LFFD; the defaults are the released face detector 25L8S."""

from __future__ import annotations

from dataclasses import replace

from detectron2.config import CfgNode as CN

from lffd_d2.receptive_field import Variant
from lffd_d2.variants import get_variant

__all__ = ["add_lffd_config", "variant_from_config"]


def add_lffd_config(cfg: CN) -> None:
    """Adds ``MODEL.LFFD`` and ``INPUT.SCALE_SAMPLING`` to a Detectron2 config, in place."""
    cfg.MODEL.LFFD = CN()
    # "25L8S", "20L5S", "17L4S", "20L4S", "16L3S", "16L3S-small", the slim "25L8S-small", "-half",
    # "17L4S-small", "-half", or "custom" with the next four.
    cfg.MODEL.LFFD.VARIANT = "25L8S"
    # One letter per 3x3 layer: D stride 2, S stride 1; S in pairs (residual units); spaces group.
    cfg.MODEL.LFFD.LAYERS = ""
    # Output channels of every layer.
    cfg.MODEL.LFFD.WIDTHS = []
    # Layers with a loss branch, e.g. ["c8", "c11"]; each ends a residual unit.
    cfg.MODEL.LFFD.TAPS = []
    # Per tap, least and greatest face size in pixels of the network's input, both included.
    cfg.MODEL.LFFD.FACE_RANGES = []
    # Width of the loss branches; 0 is the variant's own (128, 16L3S-small: 64).
    cfg.MODEL.LFFD.BRANCH_CHANNELS = 0
    # Start of the weights: "xavier", the released code's, or "fixup", which learns at once and so
    # suits short schedules.
    cfg.MODEL.LFFD.INIT = "xavier"
    # p(face) that a score layer's bias starts from: 0.5 as released. 0.01 keeps branches that a
    # checkpoint does not hold from flooding the detections before they have learned.
    cfg.MODEL.LFFD.PRIOR_PROB = 0.5

    # Labels. Faces outside a range by at most this share are ignored: floor(0.9 lo), ceil(1.1 hi).
    cfg.MODEL.LFFD.GRAY_MARGIN = 0.1
    # Face size is the box's "longer" side, "shorter" side or "sqrt_area".
    cfg.MODEL.LFFD.SCALE_MEASURE = "longer"
    # Smaller faces (network input pixels) are ignored by every branch, not taken for background.
    cfg.MODEL.LFFD.MIN_FACE = 8.0
    # Offsets are relative to half the range's upper end ("scale", the released weights) or to half
    # the receptive field ("rf", paper and note).
    cfg.MODEL.LFFD.REG_NORM = "scale"

    # Losses. "batch": divided by the images of a batch, which lr 0.1 was chosen for; "mean": not.
    cfg.MODEL.LFFD.LOSS_SCALE = "batch"
    # Box loss: "l2" on the offsets (the paper), or "giou", "diou", "ciou" on the boxes.
    cfg.MODEL.LFFD.BOX_LOSS = "l2"
    # Box losses are averaged over "positives", or divided by 2 x the map's area ("map", the
    # released code).
    cfg.MODEL.LFFD.BOX_NORM = "positives"
    cfg.MODEL.LFFD.BOX_LOSS_WEIGHT = 1.0
    # Negatives kept per positive, hardest first, per branch over the batch.
    cfg.MODEL.LFFD.NEG_POS_RATIO = 5.0
    # Share of the negatives kept on a branch where no image of the batch has a positive.
    cfg.MODEL.LFFD.NEG_FRACTION_NO_POS = 0.1

    # Inference. An image whose shorter side is below this is enlarged to it; 0 never enlarges.
    cfg.MODEL.LFFD.MIN_SIDE_TEST = 128
    cfg.MODEL.LFFD.SCORE_THRESH_TEST = 0.11
    cfg.MODEL.LFFD.TOPK_CANDIDATES_TEST = 10000
    # "iou", or "iom": intersection over the area of the lower-scored box, the released tool's.
    cfg.MODEL.LFFD.NMS_TYPE = "iou"
    cfg.MODEL.LFFD.NMS_THRESH_TEST = 0.4
    # Taps left out at inference, e.g. ["c23", "c25"] where no big faces occur; saves their cost.
    cfg.MODEL.LFFD.SKIP_BRANCHES = []

    # Scale-balanced sampling (lffd_d2.scale_sampling), chosen by INPUT.MAPPER; face ranges and
    # strides are those of the branches of MODEL.LFFD.
    cfg.INPUT.SCALE_SAMPLING = CN()
    # Side of the square crop.
    cfg.INPUT.SCALE_SAMPLING.SIZE = 640
    # A face no longer than the least size of range k, for k below this, goes to ranges 0..k only.
    cfg.INPUT.SCALE_SAMPLING.SMALL_FACE_RULES = 3
    # Chance that the draw includes one more choice, faces beyond the last range.
    cfg.INPUT.SCALE_SAMPLING.BEYOND_LAST_PROB = 0.1
    # Most that the drawn face is enlarged, e.g. 3: ranges that need more are not drawn for it (the
    # first range always may be). 0 is no limit, as released.
    cfg.INPUT.SCALE_SAMPLING.MAX_ENLARGE = 0.0
    # Chance of a crop without faces, taken beside them where the image has room.
    cfg.INPUT.SCALE_SAMPLING.NEGATIVE_RATIO = 0.1
    # Resize factors of crops without faces.
    cfg.INPUT.SCALE_SAMPLING.NEGATIVE_SCALES = [0.5, 3.5]
    # Random brightness, saturation and contrast.
    cfg.INPUT.SCALE_SAMPLING.COLOR_DISTORTION = True


def variant_from_config(cfg: CN) -> Variant:
    """The network that ``MODEL.LFFD`` describes.

    Raises:
        ValueError: the variant is unknown, or a custom one contradicts itself, or layers are
            spelled out although a released variant is named.
    """
    node = cfg.MODEL.LFFD
    spelled_out = [key for key in ("LAYERS", "WIDTHS", "TAPS", "FACE_RANGES") if len(node[key])]
    if node.VARIANT == "custom":
        return Variant(
            name="custom",
            layers=node.LAYERS,
            widths=node.WIDTHS,
            taps=node.TAPS,
            face_ranges=node.FACE_RANGES,
            branch_channels=node.BRANCH_CHANNELS or Variant.branch_channels,
            gray_margin=node.GRAY_MARGIN,
        )
    variant = get_variant(node.VARIANT)
    if spelled_out:
        raise ValueError(
            f'MODEL.LFFD.{spelled_out[0]} is set, but MODEL.LFFD.VARIANT is "{node.VARIANT}"; set '
            'VARIANT to "custom" to define a network of your own'
        )
    return replace(
        variant,
        branch_channels=node.BRANCH_CHANNELS or variant.branch_channels,
        gray_margin=node.GRAY_MARGIN,
    )
