"""Suppression in NumPy equals that of the PyTorch models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from face_d2.modeling.nms import suppress as lffd_suppress
from face_d2.ops.nms import select, suppress
from face_d2.ops.spec import Suppression


@given(
    seed=st.integers(0, 1000),
    count=st.integers(0, 60),
    nms_type=st.sampled_from(["iou", "iom"]),
    threshold=st.sampled_from([0.2, 0.4, 0.7]),
)
def test_suppression_equals_the_models(
    seed: int, count: int, nms_type: str, threshold: float
) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(1, 40, (count, 2))], axis=1)
    boxes = boxes.astype(np.float32)
    scores = torch.linspace(1, 0.1, count)
    expected = lffd_suppress(torch.from_numpy(boxes), scores, nms_type, threshold).tolist()
    assert suppress(boxes, nms_type, threshold, 1000).tolist() == expected
    assert suppress(boxes, nms_type, threshold, 3).tolist() == expected[:3]


def test_an_overlap_equal_to_the_threshold_is_kept() -> None:
    boxes = np.array([[0, 0, 4, 4], [2, 0, 4, 4]], dtype=np.float32)  # IoU 0.5
    assert suppress(boxes, "iou", 0.5, 10).tolist() == [0, 1]
    assert suppress(boxes, "iou", 0.49, 10).tolist() == [0]
    apart = np.array([[0, 0, 4, 4], [3, 0, 7, 2]], dtype=np.float32)  # (1 + 1) (2 + 1) of 8 pixels
    assert suppress(apart, "iom", 0.75, 10).tolist() == [0, 1]
    assert suppress(apart, "iom", 0.74, 10).tolist() == [0]


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(ValueError, match='"iou" or "iom"'):
        suppress(np.zeros((0, 4), np.float32), "soft", 0.5, 1)


@pytest.mark.parametrize(
    ("per_level", "expected"), [(True, [0.9, 0.8, 0.5, 0.4]), (False, [0.9, 0.8])]
)
def test_limits_threshold_and_broken_boxes(per_level: bool, expected: list[float]) -> None:
    boxes = np.array([[i * 10, 0, i * 10 + 5, 5] for i in range(7)], dtype=np.float32)
    boxes[6, 2] = np.inf
    scores = np.array([0.4, 0.9, 0.7, 0.8, 0.5, 0.1, 0.95], dtype=np.float32)
    levels = np.array([1, 0, 0, 0, 1, 1, 0])
    settings = Suppression(0.1, 2, per_level, "iou", 0.5, 100)
    found = select(boxes, scores, levels, settings)
    np.testing.assert_allclose(scores[found], expected)
