"""Suppression and voting against plain loops, their rules by hand, and their bounds."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references.box_merging_reference import iou, nms_in_loops, vote_in_loops
from torchvision.ops import nms as torchvision_nms

from face_d2.ops import nms as box_merging
from face_d2.ops.nms import best_first, nms, pairwise_iou, vote

# Whole numbers and eighths, so that both implementations round alike and ties happen.
corner = st.integers(0, 40)
side = st.integers(0, 24)
box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
detection = st.tuples(box, st.integers(1, 8), st.integers(0, 2))
thresholds = st.sampled_from([0.0, 0.25, 0.4, 0.5, 1.0])


def arrays(found: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes = np.array([f[0] for f in found], dtype=float).reshape(-1, 4)
    return boxes, np.array([f[1] / 8 for f in found]), np.array([f[2] for f in found], dtype=int)


@settings(max_examples=150)
@given(st.lists(detection, max_size=30), thresholds, st.sampled_from([1, 3, 256]))
def test_equals_plain_loops(found: list, threshold: float, block: int) -> None:
    boxes, scores, groups = arrays(found)
    order = best_first(boxes, scores)
    expected = nms_in_loops(boxes.tolist(), order.tolist(), threshold, groups.tolist())
    merged, voted = vote_in_loops(boxes.tolist(), scores.tolist(), threshold, groups.tolist())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box_merging, "_BLOCK", block)
        assert nms(boxes, order, threshold, groups).tolist() == expected
        means, kept = vote(boxes, scores, threshold, groups)
    assert kept.tolist() == voted == expected
    np.testing.assert_allclose(means, np.reshape(merged, (-1, 4)), rtol=0, atol=1e-9)


@settings(max_examples=50)
@given(st.lists(box, max_size=8), st.lists(box, max_size=8))
def test_iou_equals_plain_loops(a: list, b: list) -> None:
    result = pairwise_iou(np.reshape(a, (-1, 4)).astype(float), np.reshape(b, (-1, 4)) * 1.0)
    expected = [[iou(x, y) for y in b] for x in a]
    np.testing.assert_allclose(result, np.reshape(expected, (len(a), len(b))), atol=1e-12)


@settings(max_examples=50)
@given(
    # Rows that differ in nothing but their group may trade places: there are none.
    st.lists(detection, max_size=20, unique_by=lambda row: row[:2]),
    st.randoms(use_true_random=False),
)
def test_input_order_does_not_matter(found: list, random) -> None:
    boxes, scores, groups = arrays(found)
    means, kept = vote(boxes, scores, 0.4, groups)
    random.shuffle(found)
    again_boxes, again_scores, again_groups = arrays(found)
    again, again_kept = vote(again_boxes, again_scores, 0.4, again_groups)
    np.testing.assert_allclose(means, again, atol=1e-9)
    assert scores[kept].tolist() == again_scores[again_kept].tolist()


def test_without_groups_it_is_torchvisions() -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 300, (1000, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 60, (1000, 2))], axis=1)
    scores = generator.permutation(1000) / 1000
    expected = torchvision_nms(torch.tensor(boxes), torch.tensor(scores), 0.4)
    kept = nms(boxes, best_first(boxes, scores), 0.4)
    assert 100 < len(kept) < 900
    assert kept.tolist() == expected.tolist()


def test_boxes_of_one_group_live_side_by_side() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8.0]])
    order = np.array([0, 1, 2])
    assert nms(boxes, order, 0.5, [0, 0, 0]).tolist() == [0, 1, 2]
    assert nms(boxes, order, 0.5, [0, 0, 1]).tolist() == [0, 1]
    assert nms(boxes, order, 0.5).tolist() == [0]


def test_votes_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 12, 10], [100, 100, 110, 110.0]])
    scores = np.array([0.75, 0.25, 0.125])
    means, kept = vote(boxes, scores, 0.5)
    assert kept.tolist() == [0, 2]
    # (0.75 x 10 + 0.25 x 12) / 1; the lonely box stays, unmoved.
    assert means.tolist() == [[0, 0, 10.5, 10], [100, 100, 110, 110]]


def test_nothing_gives_nothing() -> None:
    means, kept = vote(np.zeros((0, 4)), np.zeros(0), 0.5)
    assert means.shape == (0, 4)
    assert kept.tolist() == []


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(ValueError, match="IoU threshold"):
        nms(np.zeros((0, 4)), np.zeros(0, dtype=int), threshold)


def test_memory_is_bounded() -> None:
    """6,000 boxes: their whole IoU matrix would take 288 MB, its making several times that."""
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 4000, (6000, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(10, 60, (6000, 2))], axis=1)
    scores = generator.uniform(0.02, 1, 6000)
    tracemalloc.start()
    means, _ = vote(boxes, scores, 0.4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 3000 < len(means) < 6000
    assert peak < 150e6


def test_no_torch_is_needed() -> None:
    code = (
        "import sys, face_d2.ops.tiling, face_d2.ops.nms\n"
        "assert not {'torch', 'detectron2', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
