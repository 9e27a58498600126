"""The LFFD detector as a Detectron2 meta-architecture."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torch.nn import functional as F

from face_d2.config import require_keys
from face_d2.modeling.base import Candidates, OneStageDetector, check_test_settings
from face_d2.modeling.nms import NMS_TYPES, first_kept, suppress
from face_d2.ops.resize import SizeRule
from face_d2.ops.spec import DetectorSpec, Level, Suppression
from face_d2.utils.choices import check_choice
from lffd_d2.assignment import SCALE_MEASURES, BranchLabels, decode_boxes, label_branches
from lffd_d2.backbone import LFFDNet
from lffd_d2.coverage import ReceptiveFieldCoverage
from lffd_d2.head import LFFDHead
from lffd_d2.losses import LFFDLoss

__all__ = ["LFFD"]

_LOG_PERIOD = 20  # iterations; that of Detectron2's writers


@META_ARCH_REGISTRY.register()
class LFFD(OneStageDetector):
    """One face-or-background classifier and one box regressor per branch, and no anchors.

    An image is processed at its original size. If its shorter side is below ``test_min_side``, the
    model enlarges it to this side, as the released tool does; the test mapper does not resize
    images (``INPUT.MIN_SIZE_TEST: 0``). If an image is too narrow for a face of ``min_face``
    pixels, or too small for the layers, the result is empty.

    Args:
        scale_measure, min_face, reg_norm: see ``lffd_d2.assignment``.
        test_min_side: shorter side in pixels to which smaller images are enlarged; 0 never
            enlarges.
        test_score_thresh: detections have a score above this.
        test_topk_candidates: maximum number of candidates per image before NMS.
        test_nms_type, test_nms_thresh: see ``face_d2.modeling.nms``.
        skip_branches: taps that are not computed at inference.
        pixel_mean, pixel_std, input_format, vis_period: see :class:`OneStageDetector`.

    Raises:
        ValueError: an argument is out of its range.
    """

    clips_before_nms = True

    @configurable
    def __init__(
        self,
        *,
        backbone: LFFDNet,
        head: LFFDHead,
        loss: LFFDLoss,
        scale_measure: str = "longer",
        min_face: float = 8,
        reg_norm: str = "scale",
        test_min_side: int = 128,
        test_score_thresh: float = 0.11,
        test_topk_candidates: int = 10000,
        test_nms_type: str = "iou",
        test_nms_thresh: float = 0.4,
        max_detections_per_image: int = 10000,
        skip_branches: Sequence[str] = (),
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
        variant = backbone.variant
        check_choice("MODEL.LFFD.SCALE_MEASURE", scale_measure, SCALE_MEASURES)
        check_choice("MODEL.LFFD.NMS_TYPE", test_nms_type, NMS_TYPES)
        check_test_settings(
            "MODEL.LFFD",
            score_thresh=test_score_thresh,
            nms_thresh=test_nms_thresh,
            topk=test_topk_candidates,
            max_detections=max_detections_per_image,
        )
        if not 0 <= min_face < math.inf:
            raise ValueError(f"MODEL.LFFD.MIN_FACE is {min_face}; expected pixels, at least 0.")
        unknown = sorted(set(skip_branches) - set(variant.taps))
        if unknown or set(skip_branches) == set(variant.taps):
            raise ValueError(
                f"MODEL.LFFD.SKIP_BRANCHES must name some of the taps {list(variant.taps)} and "
                f"leave at least one, got {list(skip_branches)}"
            )
        self.backbone = backbone
        self.head = head
        self.loss = loss
        self.scale_measure = scale_measure
        self.min_face = min_face
        self.reg_norm = reg_norm
        self.test_min_side = test_min_side
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_type = test_nms_type
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image
        self.branches = variant.branches
        #: The branches used at inference; ``forward_maps`` returns their maps in this order.
        self.active_branches = tuple(b for b in self.branches if b.tap not in skip_branches)
        self._active_taps = [b.tap for b in self.active_branches]
        self._recent: deque[Tensor] = deque(maxlen=_LOG_PERIOD)
        self.branches[0].divisor(reg_norm)  # reports an unknown REG_NORM before training starts

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        require_keys(cfg, "MODEL.LFFD")
        node = cfg.MODEL.LFFD
        backbone = build_backbone(cfg)
        if not isinstance(backbone, LFFDNet):
            raise ValueError(
                'META_ARCHITECTURE "LFFD" needs MODEL.BACKBONE.NAME "build_lffd_backbone", got '
                f"{cfg.MODEL.BACKBONE.NAME!r}"
            )
        variant = backbone.variant
        return {
            "backbone": backbone,
            "head": LFFDHead.for_variant(variant, node.INIT, node.PRIOR_PROB),
            "loss": LFFDLoss(
                neg_pos_ratio=node.NEG_POS_RATIO,
                neg_fraction_no_pos=node.NEG_FRACTION_NO_POS,
                loss_scale=node.LOSS_SCALE,
                box_loss=node.BOX_LOSS,
                box_norm=node.BOX_NORM,
                box_weight=node.BOX_LOSS_WEIGHT,
            ),
            "scale_measure": node.SCALE_MEASURE,
            "min_face": node.MIN_FACE,
            "reg_norm": node.REG_NORM,
            "test_min_side": node.MIN_SIDE_TEST,
            "test_score_thresh": node.SCORE_THRESH_TEST,
            "test_topk_candidates": node.TOPK_CANDIDATES_TEST,
            "test_nms_type": node.NMS_TYPE,
            "test_nms_thresh": node.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "skip_branches": node.SKIP_BRANCHES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
            "vis_period": cfg.VIS_PERIOD,
        }

    def forward_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`OneStageDetector.forward_maps`.

        For each active branch: face scores after softmax (N, 1, h, w), then offsets (N, 4, h, w).
        """
        maps: list[Tensor] = []
        features = self.backbone(images, self._active_taps)
        for logits, offsets in self.head(features).values():
            # Softmax over two channels is a sigmoid of their difference.
            maps += [(logits[:, :1] - logits[:, 1:]).sigmoid(), offsets]
        return tuple(maps)

    @property
    def map_names(self) -> tuple[str, ...]:
        """``score_<tap>`` and ``box_<tap>`` of the active branches, shallow to deep."""
        return tuple(f"{kind}_{b.tap}" for b in self.active_branches for kind in ("score", "box"))

    def decode(self, maps: Sequence[Tensor]) -> Candidates:
        """See :meth:`OneStageDetector.decode`."""
        boxes, scores, levels = [], [], []
        for index, (branch, score, offset) in enumerate(
            zip(self.active_branches, maps[::2], maps[1::2])
        ):
            flat = score.flatten(1)  # (N, h w)
            rows, columns = (
                torch.arange(side, device=score.device, dtype=offset.dtype)
                for side in score.shape[2:]
            )
            rows, columns = torch.meshgrid(rows, columns, indexing="ij")
            cells = torch.stack([columns, rows, columns, rows])  # (4, h, w)
            centers = branch.rf.start + branch.rf.stride * cells
            box = centers - offset * branch.divisor(self.reg_norm)  # (N, 4, h, w)
            boxes.append(box.flatten(2).transpose(1, 2))
            scores.append(flat)
            levels.append(torch.full_like(flat[0], index, dtype=torch.int64))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)

    def spec(self, size_rule: SizeRule, config: str) -> DetectorSpec:
        """See :meth:`OneStageDetector.spec`; the sizes of a level are the face range of its
        branch."""
        min_side, min_input = self._min_sides()
        return DetectorSpec(
            detector="LFFD",
            config=config,
            input_format=self.input_format,
            size_rule=replace(size_rule, min_side=min_side),
            min_image_side=self.min_face if self.test_min_side else max(self.min_face, min_input),
            levels=tuple(
                Level(b.tap, b.rf.stride, tuple(b.face_range)) for b in self.active_branches
            ),
            suppression=Suppression(
                score_threshold=self.test_score_thresh,
                topk=self.test_topk_candidates,
                topk_per_level=False,
                nms_type=self.test_nms_type,
                nms_threshold=self.test_nms_thresh,
                max_detections=self.max_detections_per_image,
            ),
        )

    def coverage_rule(self, training: bool) -> ReceptiveFieldCoverage:
        """See :meth:`OneStageDetector.coverage_rule`."""
        return ReceptiveFieldCoverage(self, training)

    def losses(self, images: ImageList, targets: list[Instances]) -> dict[str, Tensor]:
        """Training losses.

        ``loss_cls`` and ``loss_box_reg`` are summed over branches. Every 20th iteration, when
        Detectron2's writers write by default, the losses of each branch are put into the event
        storage, as means over 20 iterations.
        """
        logits, offsets = zip(*self.head(self.backbone(images.tensor)).values())
        map_sizes = [tuple(m.shape[-2:]) for m in logits]
        labels = self.label(map_sizes, targets)
        score, box = self.loss(list(logits), list(offsets), labels)
        self._store(score, box, labels)
        return {"loss_cls": score.sum(), "loss_box_reg": box.sum()}

    @torch.no_grad()
    def label(
        self, map_sizes: Sequence[tuple[int, int]], targets: Sequence[Instances]
    ) -> list[BranchLabels]:
        """Labels of every branch; see :func:`lffd_d2.assignment.label_branches`."""
        return label_branches(
            self.branches,
            map_sizes,
            [target.gt_boxes.tensor for target in targets],
            [self.ignored(target) for target in targets],
            reg_norm=self.reg_norm,
            scale_measure=self.scale_measure,
            min_face=self.min_face,
        )

    @torch.no_grad()
    def detect(self, images: ImageList) -> list[Instances]:
        """See :meth:`OneStageDetector.detect`; ``pred_levels`` are indices into
        ``active_branches``.

        Raises:
            ValueError: an image has no pixels, or the scores are not finite.
        """
        height, width = size = tuple(images.tensor.shape[-2:])
        if min(size) == 0:
            raise ValueError(f"an image has {height} x {width} pixels; at least one is needed")
        searched = self.searched_size(height, width)
        x = images.tensor
        if searched is None:
            none = x.new_zeros(0)
            return [self.detections(size, x.new_zeros(0, 4), none, none.long()) for _ in images]
        if searched != size:
            x = F.interpolate(x, searched, mode="bilinear", align_corners=False)
        maps = self.forward_maps(x)
        scale = x.new_tensor([width, height] * 2) / x.new_tensor(searched[::-1] * 2)
        return [self._detect_one([m[i].float() for m in maps], scale, size) for i in range(len(x))]

    def searched_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Height and width at which an image is processed; None if it is too narrow or too
        small."""
        min_side, min_input = self._min_sides()
        shorter = min(height, width)
        factor = max(min_side / shorter, 1.0)
        if shorter < self.min_face or shorter * factor < min_input:
            return None
        return round(height * factor), round(width * factor)

    def _min_sides(self) -> tuple[int, int]:
        """The shorter side to which smaller images are enlarged, or 0, and the smallest side for
        which the layers can run."""
        min_input = self.backbone.variant.min_input(self._active_taps)
        return max(self.test_min_side, min_input) if self.test_min_side else 0, min_input

    def _detect_one(
        self, maps: Sequence[Tensor], scale: Tensor, size: tuple[int, int]
    ) -> Instances:
        """Decodes the maps of one image (without batch dimension); ``scale`` (4,) maps boxes to
        ``size``."""
        candidates = []
        for level, (branch, scores, offsets) in enumerate(
            zip(self.active_branches, maps[::2], maps[1::2])
        ):
            if not torch.isfinite(scores).all():
                raise ValueError(
                    f"the scores of branch {branch.tap} are not finite: the image has NaN or "
                    "infinite pixels, or the weights do"
                )
            rows, columns = (scores[0] > self.test_score_thresh).nonzero(as_tuple=True)
            boxes = decode_boxes(
                branch, offsets[:, rows, columns].t(), rows, columns, reg_norm=self.reg_norm
            )
            candidates.append(
                (boxes * scale, scores[0, rows, columns], torch.full_like(rows, level))
            )
        boxes, scores, levels = (torch.cat(parts) for parts in zip(*candidates))
        best = scores.topk(min(self.test_topk_candidates, len(scores))).indices
        boxes, scores, levels = boxes[best], scores[best], levels[best]
        boxes[:, 0::2].clamp_(0, size[1])
        boxes[:, 1::2].clamp_(0, size[0])
        kept = first_kept(
            partial(suppress, nms_type=self.test_nms_type, threshold=self.test_nms_thresh),
            boxes,
            scores,
            self.max_detections_per_image,
        )
        return self.detections(size, boxes[kept], scores[kept], levels[kept])

    def _store(self, score: Tensor, box: Tensor, labels: Sequence[BranchLabels]) -> None:
        positives = torch.stack([target.positive.sum() for target in labels]).to(score)
        self._recent.append(torch.stack([score, box, positives]).detach())
        storage = get_event_storage()
        if (storage.iter + 1) % _LOG_PERIOD:  # reading values makes the host wait for a GPU
            return
        means = torch.stack(list(self._recent)).mean(dim=0).tolist()
        self._recent.clear()
        for name, row in zip(("lffd_cls", "lffd_box", "lffd_positives"), means):
            for branch, value in zip(self.branches, row):
                storage.put_scalar(f"{name}/{branch.tap}", value, smoothing_hint=False)
