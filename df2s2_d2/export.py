"""DF2S2 for prediction and export: its contract, and all anchors decoded at once.

Letters: N = images, A = anchors per location, R = anchors of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from df2s2_d2.matching import lay_anchors
from df2s2_d2.meta_arch import DF2S2
from face_d2.export.parts import Candidates, DetectorParts
from face_d2.predictor.model_card import Level, ModelCard, Suppression
from face_d2.predictor.resize import SizeRule

__all__ = ["describe"]


def describe(model: nn.Module) -> DetectorParts | None:
    """The parts of a DF2S2, None for any other model."""
    if not isinstance(model, DF2S2):
        return None
    shapes = list(model.anchor_generator.cell_anchors)  # per level (A, 4)
    sides = [anchors[:, 2:] - anchors[:, :2] for anchors in shapes]
    card = ModelCard(
        detector="DF2S2",
        config="",
        input_format=model.input_format,
        size_rule=SizeRule(),
        least_side=1,
        levels=tuple(
            Level(name, stride, (round(side.min().item(), 2), round(side.max().item(), 2)))
            for name, stride, side in zip(model.in_features, model.strides, sides)
        ),
        suppression=Suppression(
            score_threshold=model.test_score_thresh,
            topk=model.test_topk_candidates,
            topk_per_level=True,
            nms_type="iou",
            nms_threshold=model.test_nms_thresh,
            max_detections=model.max_detections_per_image,
        ),
    )
    names = tuple(f"{kind}_{name}" for name in model.in_features for kind in ("logits", "deltas"))

    def decode(maps: Sequence[Tensor]) -> Candidates:
        boxes, scores, levels = [], [], []
        for index, (logits, deltas) in enumerate(zip(maps[::2], maps[1::2])):
            anchors = lay_anchors(
                shapes[index], model.strides[index], model.anchor_generator.offset, logits.shape[2:]
            )
            flat = logits.permute(0, 2, 3, 1).flatten(1)  # (N, h w A)
            moves = deltas.permute(0, 2, 3, 1).reshape(-1, 4)  # (N h w A, 4)
            places = anchors.expand(flat.shape[0], -1, -1).reshape(-1, 4)  # (N h w A, 4)
            box = model.box2box_transform.apply_deltas(moves, places)
            boxes.append(box.reshape(flat.shape[0], -1, 4))
            scores.append(flat.sigmoid())
            levels.append(torch.full_like(flat[0], index, dtype=torch.int64))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)

    return DetectorParts(card, names, decode, cut_first=False)
