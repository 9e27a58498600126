from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import nms

from face_d2.modeling.nms import first_kept, suppress

MEASURES = {
    "iou": partial(nms, iou_threshold=0.4),
    "lffd-iou": partial(suppress, nms_type="iou", threshold=0.4),
    "lffd-iom": partial(suppress, nms_type="iom", threshold=0.4),
}


def crowd(count: int, extent: float, seed: int) -> tuple[Tensor, Tensor]:
    """Boxes of 10 to 40 pixels; scores of few values, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * extent
    boxes = torch.cat([corner, corner + 10 + 30 * torch.rand(count, 2, generator=generator)], 1)
    return boxes, torch.randint(1, 20, (count,), generator=generator) / 20


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(MEASURES)),
    st.integers(0, 300),
    st.sampled_from([20.0, 200.0, 5000.0]),
    st.integers(1, 60),
    st.integers(0, 1000),
)
def test_it_is_the_beginning_of_the_whole(
    measure: str, count: int, extent: float, limit: int, seed: int
) -> None:
    boxes, scores = crowd(count, extent, seed)
    whole = MEASURES[measure](boxes, scores)
    assert first_kept(MEASURES[measure], boxes, scores, limit).tolist() == whole[:limit].tolist()


@pytest.mark.parametrize("extent", [30.0, 1e6])
def test_the_work_is_bounded(extent: float) -> None:
    """Boxes looked at, over all rounds, and boxes kept in the rounds before the last."""
    boxes, scores = crowd(50_000, extent, 0)
    rounds = []

    def counted(part: Tensor, part_scores: Tensor) -> Tensor:
        kept = nms(part, part_scores, 0.4)
        rounds.append((len(part), len(kept)))
        return kept

    first_kept(counted, boxes, scores, 100)
    assert all(kept < 100 for _, kept in rounds[:-1])
    assert [looked_at for looked_at, _ in rounds] == [min(400 * 2**i, 50_000) for i in range(8)][
        : len(rounds)
    ]
    assert len(rounds) == (8 if extent < 100 else 1)
