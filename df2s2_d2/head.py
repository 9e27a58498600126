"""The head: one tower of convolutions under classification, boxes and segmentation.

arXiv 1811.08557, sections 3.1 (classification and boxes share everything but the last convolution,
and all levels share all of it) and 3.2 (segmentation shares the tower too, and is used in training
only).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from df2s2_d2.norms import build_norm
from face_d2.utils.choices import check_choice

__all__ = ["DF2S2Head"]

SHARE_TOWER = ("all", "det", "none")
PREDICTOR_INITS = ("xavier", "normal")


class DF2S2Head(nn.Module):
    """Predicts scores, boxes and, while training, face masks on every level.

    The layers have the same names as in Detectron2's RetinaNet head. If the structure is the same,
    the weights of either fit the other.

    Args:
        in_channels: width of every level.
        num_anchors: anchors per location (A).
        num_convs: number of 3x3 convolutions in a tower.
        conv_dim: width of these convolutions.
        norm: Detectron2's name of the normalization after every convolution of a tower; "" is none.
        share_tower: "all": one tower; "det": segmentation has its own; "none": three towers.
        segmentation: whether there is a segmentation branch.
        prior_prob: initial score of every anchor, between 0 and 1.
        seg_prior_prob: the same for every pixel of the masks; 0.5 is no prior.
        predictor_init: initialization of the last convolution of every branch: "xavier", as in the
            towers, or "normal" with a standard deviation of 0.01 (RetinaNet, arXiv 1708.02002,
            4.1), with which all outputs start at their priors.

    Raises:
        ValueError: an option is unknown, or a number is out of its range.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_anchors: int,
        num_convs: int = 4,
        conv_dim: int = 256,
        norm: str = "",
        share_tower: str = "all",
        segmentation: bool = True,
        prior_prob: float = 0.01,
        seg_prior_prob: float = 0.5,
        predictor_init: str = "xavier",
    ) -> None:
        super().__init__()
        check_choice("MODEL.DF2S2.SHARE_TOWER", share_tower, SHARE_TOWER)
        check_choice("MODEL.DF2S2.PREDICTOR_INIT", predictor_init, PREDICTOR_INITS)
        if num_anchors < 1:
            raise ValueError(
                f"the head has {num_anchors} anchors per location; expected at least one size in "
                "MODEL.ANCHOR_GENERATOR.SIZES and one ratio in ASPECT_RATIOS."
            )
        if num_convs < 0 or conv_dim < 1:
            raise ValueError(
                f"MODEL.DF2S2.NUM_CONVS is {num_convs} and CONV_DIM is {conv_dim}; expected at "
                "least 0 and 1."
            )
        for key, prior in (("PRIOR_PROB", prior_prob), ("SEG_PRIOR_PROB", seg_prior_prob)):
            if not 0 < prior < 1:
                raise ValueError(
                    f"MODEL.DF2S2.{key} is {prior}; expected a score between 0 and 1, "
                    "neither of them included."
                )
        tower = partial(_tower, in_channels, conv_dim, num_convs, norm)
        self.cls_subnet = tower()
        # None: the branch uses the classification tower.
        self.bbox_subnet = tower() if share_tower == "none" else None
        self.seg_subnet = tower() if segmentation and share_tower != "all" else None
        width = conv_dim if num_convs else in_channels
        self.cls_score = _conv3x3(width, num_anchors)
        self.bbox_pred = _conv3x3(width, 4 * num_anchors)
        nn.init.constant_(self.cls_score.bias, _logit(prior_prob))
        self.seg_score = _conv3x3(width, 1) if segmentation else None
        if self.seg_score is not None:
            nn.init.constant_(self.seg_score.bias, _logit(seg_prior_prob))
        if predictor_init == "normal":
            for predictor in (self.cls_score, self.bbox_pred, self.seg_score):
                if predictor is not None:
                    nn.init.normal_(predictor.weight, std=0.01)

    @property
    def segmentation(self) -> bool:
        """Whether there is a segmentation branch."""
        return self.seg_score is not None

    def forward(
        self, features: Sequence[Tensor], *, segment: bool = False
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Runs the head over the features of all levels, (N, C, H, W) each.

        Returns:
            Per level: logits (N, A, H, W), box deltas (N, 4A, H, W), and mask logits (N, 1, H, W),
            an empty list unless ``segment``.
        """
        logits, deltas, masks = [], [], []
        for feature in features:
            scored = self.cls_subnet(feature)
            boxed = self.bbox_subnet(feature) if self.bbox_subnet is not None else scored
            logits.append(self.cls_score(scored))
            deltas.append(self.bbox_pred(boxed))
            if segment:
                masked = self.seg_subnet(feature) if self.seg_subnet is not None else scored
                masks.append(self.seg_score(masked))
        return logits, deltas, masks


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _tower(in_channels: int, conv_dim: int, num_convs: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(num_convs):
        layers.append(_conv3x3(conv_dim if index else in_channels, conv_dim))
        if norm:
            layers.append(build_norm("MODEL.DF2S2.NORM", norm, conv_dim))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv
