"""DF2S2: anchors, labels, losses and inference (arXiv 1811.08557, section 3).

Letters: N = images, L = levels, A = anchors per location, R = anchors of all levels, M = faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_anchor_generator, build_backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torchvision.ops import nms

from df2s2_d2.anchors import AnchorGrid, AnchorGridCache, check_anchors, decode_maps
from df2s2_d2.coverage import AnchorCoverage
from df2s2_d2.head import DF2S2Head
from df2s2_d2.losses import (
    BOX_LOSSES,
    CLS_NORMS,
    box_loss,
    classification_loss,
    iou_box_loss,
    level_weights,
)
from df2s2_d2.matching import AnchorLabels, FaceAnchorMatcher
from df2s2_d2.segmentation import area_levels, segmentation_loss
from face_d2.config import require_keys
from face_d2.modeling.base import Candidates, OneStageDetector, check_test_settings
from face_d2.modeling.freeze import freeze_unused
from face_d2.modeling.nms import first_kept
from face_d2.modeling.rectangles import part_starts
from face_d2.ops.resize import SizeRule
from face_d2.ops.spec import DetectorSpec, Level, Suppression
from face_d2.utils.choices import check_choice

__all__ = ["DF2S2"]


@META_ARCH_REGISTRY.register()
class DF2S2(OneStageDetector):
    """Single-stage face detector with a segmentation branch that is used in training only.

    With an FPN, separate towers and no segmentation branch, this is the RetinaNet baseline.

    Args:
        in_features: the maps of the backbone used for detection, shallow to deep. Layers on which
            no chosen map depends are not trained.
        anchor_generator: its shapes, strides and offset are used.
        cls_norm, focal_loss_alpha, focal_loss_gamma, focal_loss_margin: classification loss.
        box_loss: "smooth_l1" of the deltas, or "giou", "diou", "ciou" of the boxes.
        smooth_l1_beta: used by "smooth_l1" only.
        box_weight: lambda1 (section 3.4).
        seg_weight: lambda2 (section 3.4).
        seg_assign, seg_reduction: see ``MODEL.DF2S2`` in config.py.
        test_score_thresh, test_topk_candidates, test_nms_thresh, max_detections_per_image:
            inference; candidates are counted per level, before NMS.
        pixel_mean, pixel_std, input_format, vis_period: see :class:`OneStageDetector`.

    Raises:
        ValueError: on an unknown choice or an argument out of its range.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        in_features: Sequence[str],
        head: DF2S2Head,
        anchor_generator: DefaultAnchorGenerator,
        matcher: FaceAnchorMatcher,
        box2box_transform: Box2BoxTransform,
        cls_norm: str = "global_pos",
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        focal_loss_margin: float = 0.0,
        box_loss: str = "smooth_l1",
        smooth_l1_beta: float = 0.11,
        box_weight: float = 1.0,
        seg_weight: float = 0.25,
        seg_assign: str = "anchor",
        seg_reduction: str = "mean",
        test_score_thresh: float = 0.02,
        test_topk_candidates: int = 5000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 750,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "BGR",
        vis_period: int = 0,
    ) -> None:
        super().__init__(
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            input_format=input_format,
            vis_period=vis_period,
        )
        check_choice("MODEL.DF2S2.CLS_NORM", cls_norm, CLS_NORMS)
        check_choice("MODEL.DF2S2.BOX_LOSS", box_loss, BOX_LOSSES)
        check_choice("MODEL.DF2S2.SEG_ASSIGN", seg_assign, ("anchor", "area"))
        check_choice("MODEL.DF2S2.SEG_REDUCTION", seg_reduction, ("mean", "sum"))
        check_test_settings(
            "MODEL.DF2S2",
            score_thresh=test_score_thresh,
            nms_thresh=test_nms_thresh,
            topk=test_topk_candidates,
            max_detections=max_detections_per_image,
        )
        check_anchors(anchor_generator.cell_anchors, box2box_transform)
        freeze_unused(backbone, in_features, len(pixel_mean))
        self.backbone, self.size_divisibility = backbone, backbone.size_divisibility
        self.in_features = tuple(in_features)
        self.strides = [backbone.output_shape()[name].stride for name in in_features]
        self.head, self.anchor_generator = head, anchor_generator
        self._grids = AnchorGridCache()
        self.matcher, self.box2box_transform = matcher, box2box_transform
        self.cls_norm, self.box_loss = cls_norm, box_loss
        running = torch.zeros(()) if cls_norm == "running_pos" else None
        self.register_buffer("running_positives", running)  # saved and resumed
        self.focal_loss_alpha, self.focal_loss_gamma = focal_loss_alpha, focal_loss_gamma
        self.focal_loss_margin, self.smooth_l1_beta = focal_loss_margin, smooth_l1_beta
        self.box_weight, self.seg_weight = box_weight, seg_weight
        self.seg_assign, self.seg_reduction = seg_assign, seg_reduction
        self.test_score_thresh, self.test_nms_thresh = test_score_thresh, test_nms_thresh
        self.test_topk_candidates = test_topk_candidates
        self.max_detections_per_image = max_detections_per_image

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        require_keys(cfg, "MODEL.DF2S2")
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        settings = cfg.MODEL.DF2S2
        in_features = settings.IN_FEATURES or sorted(shapes, key=lambda name: shapes[name].stride)
        unknown = [name for name in in_features if name not in shapes]
        if unknown:
            raise ValueError(
                f"MODEL.DF2S2.IN_FEATURES asks for {unknown}; expected some of the backbone's maps "
                f"{list(shapes)}, or [] for all."
            )
        widths = {shapes[name].channels for name in in_features}
        if len(widths) > 1:
            raise ValueError(
                f"the head's convolutions are shared by all levels, but {list(in_features)} have "
                f"{sorted(widths)} channels; set MODEL.FFP.OUT_CHANNELS to one width, for example "
                "256."
            )
        anchor_generator = build_anchor_generator(cfg, [shapes[name] for name in in_features])
        anchors_per_cell = set(anchor_generator.num_anchors)
        if len(anchors_per_cell) > 1:
            raise ValueError(
                f"MODEL.ANCHOR_GENERATOR gives {sorted(anchors_per_cell)} anchors on different "
                "levels; a head shared by all levels needs the same number on each."
            )
        head = DF2S2Head(
            in_channels=widths.pop(),
            num_anchors=anchors_per_cell.pop(),
            num_convs=settings.NUM_CONVS,
            conv_dim=settings.CONV_DIM,
            norm=settings.NORM,
            share_tower=settings.SHARE_TOWER,
            segmentation=settings.SEG_ENABLED,
            prior_prob=settings.PRIOR_PROB,
            seg_prior_prob=settings.SEG_PRIOR_PROB,
            predictor_init=settings.PREDICTOR_INIT,
        )
        return {
            "backbone": backbone,
            "in_features": in_features,
            "head": head,
            "anchor_generator": anchor_generator,
            "matcher": FaceAnchorMatcher(
                settings.IOU_THRESHOLDS,
                settings.LOW_QUALITY_MIN_IOU,
                settings.LOW_QUALITY_TOPK,
                settings.MIN_FACE,
            ),
            "box2box_transform": Box2BoxTransform(weights=settings.BBOX_REG_WEIGHTS),
            "cls_norm": settings.CLS_NORM,
            "focal_loss_alpha": settings.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": settings.FOCAL_LOSS_GAMMA,
            "focal_loss_margin": settings.FOCAL_LOSS_MARGIN,
            "box_loss": settings.BOX_LOSS,
            "smooth_l1_beta": settings.SMOOTH_L1_BETA,
            "box_weight": settings.BOX_WEIGHT,
            "seg_weight": settings.SEG_WEIGHT,
            "seg_assign": settings.SEG_ASSIGN,
            "seg_reduction": settings.SEG_REDUCTION,
            "test_score_thresh": settings.SCORE_THRESH_TEST,
            "test_topk_candidates": settings.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": settings.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
            "vis_period": cfg.VIS_PERIOD,
        }

    def forward_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`OneStageDetector.forward_maps`.

        Per level, shallow to deep: logits (N, A, H, W), then box deltas (N, 4A, H, W).
        """
        logits, deltas, _ = self.head(self._features(images))
        return tuple(part for level in zip(logits, deltas) for part in level)

    @property
    def map_names(self) -> tuple[str, ...]:
        """``logits_<level>`` and ``deltas_<level>`` of each level, shallow to deep."""
        return tuple(f"{kind}_{name}" for name in self.in_features for kind in ("logits", "deltas"))

    def decode(self, maps: Sequence[Tensor]) -> Candidates:
        """See :meth:`OneStageDetector.decode`."""
        boxes, scores, levels = [], [], []
        for index, (logits, deltas) in enumerate(zip(maps[::2], maps[1::2])):
            flat = logits.permute(0, 2, 3, 1).flatten(1)  # (N, h w A)
            shapes, offset = self._shapes()[index], self.anchor_generator.offset
            boxes.append(
                decode_maps(deltas, shapes, self.strides[index], offset, self.box2box_transform)
            )
            scores.append(flat.sigmoid())
            levels.append(torch.full_like(flat[0], index, dtype=torch.int64))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)

    def spec(self, size_rule: SizeRule, config: str) -> DetectorSpec:
        """See :meth:`OneStageDetector.spec`; the sizes of a level are those of its anchors."""
        sides = [anchors[:, 2:] - anchors[:, :2] for anchors in self._shapes()]
        return DetectorSpec(
            detector="DF2S2",
            config=config,
            input_format=self.input_format,
            size_rule=replace(size_rule, min_side=0),
            min_image_side=1,
            levels=tuple(
                Level(name, stride, (round(side.min().item(), 2), round(side.max().item(), 2)))
                for name, stride, side in zip(self.in_features, self.strides, sides)
            ),
            suppression=Suppression(
                score_threshold=self.test_score_thresh,
                topk=self.test_topk_candidates,
                topk_per_level=True,
                nms_type="iou",
                nms_threshold=self.test_nms_thresh,
                max_detections=self.max_detections_per_image,
            ),
        )

    def coverage_rule(self, training: bool) -> AnchorCoverage:
        """See :meth:`OneStageDetector.coverage_rule`; ``training`` has no effect."""
        return AnchorCoverage(self)

    def segment(self, images: Tensor) -> list[Tensor]:
        """Predicted face masks of normalized images (N, 3, H, W): per level (N, 1, H, W)
        probabilities.

        Raises:
            ValueError: when the model was built without the branch.
        """
        if not self.head.segmentation:
            raise ValueError("this model has no segmentation branch (MODEL.DF2S2.SEG_ENABLED).")
        _, _, masks = self.head(self._features(images), segment=True)
        return [mask.sigmoid() for mask in masks]

    def levels_of_faces(self, target: Instances, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """(M, L) bool: the levels whose mask shows a face in training.

        Args:
            target: ``gt_boxes`` and optionally ``gt_ignore``.
            sizes: (rows, columns) of every level.
        """
        boxes, ignore = target.gt_boxes.tensor, self.ignored(target)
        return self._shown_on(self.matcher(self._grid(sizes), boxes, ignore), boxes)

    def losses(self, images: ImageList, targets: list[Instances]) -> dict[str, Tensor]:
        """``loss_cls``, ``loss_box_reg`` and, with segmentation, ``loss_seg``."""
        logits, deltas, masks = self.head(
            self._features(images.tensor), segment=self.head.segmentation
        )
        grid = self._grid([tuple(level.shape[-2:]) for level in logits])
        boxes = [target.gt_boxes.tensor for target in targets]
        ignore = [self.ignored(target) for target in targets]
        matches = self.matcher.label_batch(grid, boxes, ignore)
        losses = self.detection_losses(grid, logits, deltas, boxes, matches)
        if self.head.segmentation:
            on_level = [self._shown_on(m, b) for m, b in zip(matches, boxes)]
            ignore = [match.ignore for match in matches]
            losses["loss_seg"] = self.seg_weight * segmentation_loss(
                masks, boxes, ignore, on_level, self.strides, self.seg_reduction
            )
        return losses

    def detection_losses(
        self,
        grid: AnchorGrid,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        boxes: Sequence[Tensor],
        matches: Sequence[AnchorLabels],
    ) -> dict[str, Tensor]:
        """Classification and box loss, of the outputs of the head per level, and the faces (M, 4)
        XYXY and the result of the matcher per image."""
        flat_logits = torch.cat([_flatten(level, 1) for level in logits], dim=1)[..., 0]  # (N, R)
        flat_deltas = torch.cat([_flatten(level, 4) for level in deltas], dim=1)  # (N, R, 4)
        labels = torch.stack([match.labels for match in matches])  # (N, R)
        cls_weights, box_weights = level_weights(
            labels, grid.levels, len(logits), self.cls_norm, self.running_positives
        )
        image, anchor = (labels == 1).nonzero(as_tuple=True)  # (P,)
        faces = torch.stack([match.faces for match in matches])[image, anchor]
        box_losses = self._box_loss(
            flat_deltas[image, anchor],
            grid.boxes[anchor],
            torch.cat(list(boxes))[faces + part_starts(boxes)[image]],
            box_weights[grid.levels[anchor]],
        )
        get_event_storage().put_scalar("num_pos_anchors", len(anchor) / len(boxes))
        return {
            "loss_cls": classification_loss(
                flat_logits,
                labels,
                cls_weights[grid.levels],
                self.focal_loss_alpha,
                self.focal_loss_gamma,
                self.focal_loss_margin,
            ),
            "loss_box_reg": self.box_weight * box_losses,
        }

    def _box_loss(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, weights: Tensor) -> Tensor:
        if self.box_loss == "smooth_l1":
            targets = self.box2box_transform.get_deltas(anchors, boxes)
            return box_loss(deltas, targets, weights, self.smooth_l1_beta)
        return iou_box_loss(self.box_loss, deltas, anchors, boxes, weights, self.box2box_transform)

    def detect(self, images: ImageList) -> list[Instances]:
        """See :meth:`OneStageDetector.detect`; ``pred_levels`` are indices into ``in_features``."""
        logits, deltas, _ = self.head(self._features(images.tensor))
        grid = self._grid([tuple(level.shape[-2:]) for level in logits])
        scores = [_flatten(level, 1)[..., 0].sigmoid() for level in logits]
        deltas = [_flatten(level, 4) for level in deltas]
        anchors = grid.boxes.split([level.shape[1] for level in scores])
        return [
            self._detect_one([s[i] for s in scores], [d[i] for d in deltas], anchors, size)
            for i, size in enumerate(images.image_sizes)
        ]

    def _detect_one(
        self,
        scores: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        candidates = []
        for level, (values, moves, places) in enumerate(zip(scores, deltas, anchors)):
            above = (values > self.test_score_thresh).nonzero(as_tuple=True)[0]
            best = above[values[above].topk(min(self.test_topk_candidates, len(above))).indices]
            found = self.box2box_transform.apply_deltas(moves[best], places[best])
            candidates.append((found, values[best], torch.full_like(best, level)))
        boxes, scores, levels = (torch.cat(parts) for parts in zip(*candidates))
        finite = torch.isfinite(boxes).all(dim=1)
        boxes, scores, levels = boxes[finite], scores[finite], levels[finite]
        # As in Detectron2's RetinaNet, boxes are clipped at the image border after NMS.
        suppress = partial(nms, iou_threshold=self.test_nms_thresh)
        kept = first_kept(suppress, boxes, scores, self.max_detections_per_image)
        return self.detections(image_size, boxes[kept], scores[kept], levels[kept])

    def _features(self, images: Tensor) -> list[Tensor]:
        maps = self.backbone(images)
        return [maps[name] for name in self.in_features]

    def _grid(self, sizes: Sequence[tuple[int, int]]) -> AnchorGrid:
        return self._grids(self._shapes(), self.strides, self.anchor_generator.offset, sizes)

    def _shapes(self) -> list[Tensor]:
        return list(self.anchor_generator.cell_anchors)  # per level (A, 4)

    def _shown_on(self, match: AnchorLabels, boxes: Tensor) -> Tensor:
        if self.seg_assign == "anchor":
            return match.on_level
        areas = [shapes[:, 2:].sub(shapes[:, :2]).prod(1).min() for shapes in self._shapes()]
        return area_levels(boxes, torch.stack(areas).sqrt()) & ~match.ignore[:, None]


def _flatten(level: Tensor, per_anchor: int) -> Tensor:
    """(N, A K, H, W) to (N, H W A, K), the order of the anchors."""
    n, _, height, width = level.shape
    level = level.view(n, -1, per_anchor, height, width).permute(0, 3, 4, 1, 2)
    return level.reshape(n, -1, per_anchor)
