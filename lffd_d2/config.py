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
    # The network: "25L8S", "20L5S", "17L4S", "20L4S", "16L3S", "16L3S-small", the slimmer
    # "25L8S-small", "25L8S-half", "17L4S-small", "17L4S-half", or "custom", which the next four
    # keys define.
    cfg.MODEL.LFFD.VARIANT = "25L8S"
    # One letter per 3x3 layer: D has stride 2, S has stride 1. S layers come in pairs (residual
    # units). Spaces are ignored.
    cfg.MODEL.LFFD.LAYERS = ""
    # Output channels of every layer.
    cfg.MODEL.LFFD.WIDTHS = []
    # Layers with a loss branch, e.g. ["c8", "c11"]; each must end a residual unit.
    cfg.MODEL.LFFD.TAPS = []
    # For each tap, the minimum and maximum face size in pixels of the network's input, inclusive.
    cfg.MODEL.LFFD.FACE_RANGES = []
    # Channels of the loss branches; 0 uses the value of the variant (128; 16L3S-small: 64).
    cfg.MODEL.LFFD.BRANCH_CHANNELS = 0
    # Initialization: "xavier" as in the released code, or "fixup", which learns faster at the start
    # and suits short schedules.
    cfg.MODEL.LFFD.INIT = "xavier"
    # Initial score of every location: 0.5 as in the released code. With 0.01, branches that are
    # missing in a checkpoint do not produce many false detections before they are trained.
    cfg.MODEL.LFFD.PRIOR_PROB = 0.5

    # Labels: a branch ignores faces that are outside its range by at most this fraction. With 0.1
    # and the range [lo, hi], these are the sizes from floor(0.9 lo) to ceil(1.1 hi).
    cfg.MODEL.LFFD.GRAY_MARGIN = 0.1
    # The size of a face: the "longer" side of its box, the "shorter" side, or "sqrt_area".
    cfg.MODEL.LFFD.SCALE_MEASURE = "longer"
    # Faces below this size, in pixels of the network's input, are ignored by every branch; they are
    # not background.
    cfg.MODEL.LFFD.MIN_FACE = 8.0
    # Box offsets are divided by half the maximum of the face range ("scale", as in the released
    # weights) or by half the receptive field ("rf", arXiv 1904.10633, section 3.4).
    cfg.MODEL.LFFD.REG_NORM = "scale"

    # "batch" divides the losses by the number of images in the batch; "mean" does not. The learning
    # rate 0.1 of the configs is for "batch".
    cfg.MODEL.LFFD.LOSS_SCALE = "batch"
    # Box loss: "l2" on the offsets (the paper), or "giou", "diou" or "ciou" on the boxes.
    cfg.MODEL.LFFD.BOX_LOSS = "l2"
    # Box losses are averaged over the "positives", or divided by twice the area of the map ("map",
    # as in the released code).
    cfg.MODEL.LFFD.BOX_NORM = "positives"
    # Factor on the box loss.
    cfg.MODEL.LFFD.BOX_LOSS_WEIGHT = 1.0
    # Number of negatives per positive that are kept, the hardest first. Both are counted per branch
    # over the whole batch.
    cfg.MODEL.LFFD.NEG_POS_RATIO = 5.0
    # Fraction of the negatives that is kept on a branch if the batch has no positive there.
    cfg.MODEL.LFFD.NEG_FRACTION_NO_POS = 0.1

    # Inference: an image with a shorter side below this is enlarged to it; 0 never enlarges.
    cfg.MODEL.LFFD.MIN_SIDE_TEST = 128
    # Detections have a score above this.
    cfg.MODEL.LFFD.SCORE_THRESH_TEST = 0.11
    # Maximum number of candidates per image before NMS.
    cfg.MODEL.LFFD.TOPK_CANDIDATES_TEST = 10000
    # Overlap measure of NMS: "iou", or "iom" as in the released tool, which divides the
    # intersection by the area of the lower-scored box.
    cfg.MODEL.LFFD.NMS_TYPE = "iou"
    cfg.MODEL.LFFD.NMS_THRESH_TEST = 0.4
    # Taps that inference skips to save time, e.g. ["c23", "c25"] if there are no large faces.
    cfg.MODEL.LFFD.SKIP_BRANCHES = []

    # Scale-balanced sampling (lffd_d2.scale_sampling), selected by INPUT.MAPPER. Face ranges and
    # strides are those of the branches of MODEL.LFFD.
    cfg.INPUT.SCALE_SAMPLING = CN()
    # Side of the square crop.
    cfg.INPUT.SCALE_SAMPLING.SIZE = 640
    # Limits the enlargement of small faces: if a face is not longer than the minimum of range k
    # (counted from 0), and k is below this number, it is resized to one of the ranges 0 to k only.
    cfg.INPUT.SCALE_SAMPLING.SMALL_FACE_RULES = 3
    # Probability that one more range can be drawn: sizes from the maximum of the last range to 1.5
    # times this maximum.
    cfg.INPUT.SCALE_SAMPLING.BEYOND_LAST_PROB = 0.1
    # Maximum factor by which the drawn face is enlarged, e.g. 3. Ranges that need a larger factor
    # are not drawn, except the first range. 0 is no limit, as in the released code.
    cfg.INPUT.SCALE_SAMPLING.MAX_ENLARGE = 0.0
    # Probability of a crop without faces. It shows a strip of at least 100 pixels beside all faces;
    # if there is none, the crop shows a face.
    cfg.INPUT.SCALE_SAMPLING.NEGATIVE_RATIO = 0.1
    # Resize factors of crops without faces.
    cfg.INPUT.SCALE_SAMPLING.NEGATIVE_SCALES = [0.5, 3.5]
    # Random brightness, saturation and contrast.
    cfg.INPUT.SCALE_SAMPLING.COLOR_DISTORTION = True


def variant_from_config(cfg: CN) -> Variant:
    """The network that ``MODEL.LFFD`` describes.

    Raises:
        ValueError: the variant is unknown, a custom variant is inconsistent, or layers are given
            for a named variant.
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
