"""LFFD for prediction and export: its contract, and all locations decoded at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from face_d2.export.parts import Candidates, DetectorParts
from face_d2.predictor.model_card import Level, ModelCard, Suppression
from face_d2.predictor.resize import SizeRule
from lffd_d2.meta_arch import LFFD

__all__ = ["describe"]


def describe(model: nn.Module) -> DetectorParts | None:
    """The parts of an LFFD, None for any other model."""
    if not isinstance(model, LFFD):
        return None
    branches = model.active_branches
    least = model.backbone.variant.min_input([branch.tap for branch in branches])
    card = ModelCard(
        detector="LFFD",
        config="",
        input_format=model.input_format,
        size_rule=SizeRule(min_side=max(model.test_min_side, least) if model.test_min_side else 0),
        least_side=model.min_face if model.test_min_side else max(model.min_face, least),
        levels=tuple(Level(b.tap, b.rf.stride, tuple(b.face_range)) for b in branches),
        suppression=Suppression(
            score_threshold=model.test_score_thresh,
            topk=model.test_topk_candidates,
            topk_per_level=False,
            nms_type=model.test_nms_type,
            nms_threshold=model.test_nms_thresh,
            max_detections=model.max_detections_per_image,
        ),
    )
    names = tuple(f"{kind}_{branch.tap}" for branch in branches for kind in ("score", "box"))

    def decode(maps: Sequence[Tensor]) -> Candidates:
        boxes, scores, levels = [], [], []
        for index, (branch, score, offset) in enumerate(zip(branches, maps[::2], maps[1::2])):
            flat = score.flatten(1)  # (N, h w)
            rows = torch.arange(score.shape[2], device=score.device, dtype=offset.dtype)
            columns = torch.arange(score.shape[3], device=score.device, dtype=offset.dtype)
            rows, columns = torch.meshgrid(rows, columns, indexing="ij")
            cells = torch.stack([columns, rows, columns, rows])  # (4, h, w)
            centres = branch.rf.start + branch.rf.stride * cells
            box = centres - offset * branch.divisor(model.reg_norm)  # (N, 4, h, w)
            boxes.append(box.flatten(2).transpose(1, 2))
            scores.append(flat)
            levels.append(torch.full_like(flat[0], index, dtype=torch.int64))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)

    return DetectorParts(card, names, decode, cut_first=True)
