"""Suppression by both measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from face_d2.modeling.nms import suppress


def iom_reference(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    """The released tool's rule with plain loops."""
    remaining = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept = []
    while remaining:
        best, *remaining = remaining
        kept.append(best)
        a = boxes[best]
        survivors = []
        for i in remaining:
            b = boxes[i]
            width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
            height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
            if width * height <= threshold * (b[2] - b[0]) * (b[3] - b[1]):
                survivors.append(i)
        remaining = survivors
    return kept


box = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(0, 20)] * 2).map(
    lambda b: [float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])]
)


@settings(max_examples=100)
@given(st.lists(box, max_size=15), st.sampled_from([0.0, 0.25, 0.5, 0.875]), st.randoms())
def test_iom_equals_plain_loops(boxes: list, threshold: float, random) -> None:
    scores = [(i + 1) / 100 for i in range(len(boxes))]
    random.shuffle(scores)
    kept = suppress(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), "iom", threshold)
    assert kept.tolist() == iom_reference(boxes, scores, threshold)


def test_the_measures_differ_where_a_small_box_lies_in_a_large_one() -> None:
    boxes = torch.tensor([[0.0, 0.0, 40.0, 40.0], [10.0, 10.0, 20.0, 20.0]])
    scores = torch.tensor([0.9, 0.8])
    assert suppress(boxes, scores, "iou", 0.4).tolist() == [0, 1]
    assert suppress(boxes, scores, "iom", 0.4).tolist() == [0]
    # The area that counts is the lower-scored box's.
    assert suppress(boxes, scores.flip(0), "iom", 0.4).tolist() == [1, 0]


@pytest.mark.parametrize("nms_type", ["iou", "iom"])
def test_no_boxes(nms_type: str) -> None:
    kept = suppress(torch.zeros(0, 4), torch.zeros(0), nms_type, 0.4)
    assert kept.tolist() == []
    assert kept.dtype == torch.int64


@pytest.mark.parametrize("nms_type", ["iou", "iom"])
def test_best_score_comes_first(nms_type: str) -> None:
    corners = torch.tensor(np.random.default_rng(0).uniform(0, 300, (200, 2)), dtype=torch.float32)
    scores = torch.linspace(0, 1, 200)[torch.randperm(200)]
    kept = suppress(torch.cat([corners, corners + 20], dim=1), scores, nms_type, 0.4)
    assert 1 < len(kept) < 200
    assert (scores[kept].diff() <= 0).all()


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(ValueError, match="nms_type is 'soft'; expected one of"):
        suppress(torch.zeros(0, 4), torch.zeros(0), "soft", 0.4)
