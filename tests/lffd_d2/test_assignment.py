"""Labels against the plain loops, cell by cell, and the rules one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from references.lffd_assignment_reference import label_image

from lffd_d2.assignment import BranchLabels, decode_boxes, face_sizes, label_branch, label_branches
from lffd_d2.receptive_field import Branch, Variant
from lffd_d2.variants import get_variant

RULES = {"reg_norm": "scale", "scale_measure": "longer", "min_face": 8}
FIRST = get_variant("25L8S").branches[0]  # c8: stride 4, first center 3, faces 10-15, gray 9-17


def label(
    branch: Branch, map_size: tuple[int, int], *images: list[tuple], **rules: Any
) -> BranchLabels:
    """Labels images given as lists of (x1, y1, x2, y2) or (x1, y1, x2, y2, ignored)."""
    boxes = [torch.tensor([face[:4] for face in faces]).reshape(-1, 4) for faces in images]
    ignore = [
        torch.tensor([len(f) > 4 and bool(f[4]) for f in faces], dtype=bool) for faces in images
    ]
    return label_branch(branch, map_size, boxes, ignore, **{**RULES, **rules})


def as_arrays(labels: BranchLabels, image: int) -> tuple[NDArray, NDArray, NDArray]:
    """Score (1, 0, -1), box mask and dense targets of one image."""
    score = torch.full(labels.positive.shape[1:], -1)
    score[labels.negative[image]] = 0
    score[labels.positive[image]] = 1
    mask = torch.zeros(score.shape, dtype=torch.bool)
    targets = torch.zeros(*score.shape, 4)
    for cell, target in zip(labels.box_cells.tolist(), labels.box_targets):
        if cell[0] == image:
            mask[cell[1], cell[2]] = True
            targets[cell[1], cell[2]] = target
    return score.numpy(), mask.numpy(), targets.numpy()


# Quarters of a pixel are exact in float32, so that borders coincide with centers often.
quarter = st.integers(-120, 720).map(lambda n: n / 4)
side = st.one_of(
    st.sampled_from([8.0, 9.0, 10.0, 15.0, 17.0, 18.0, 20.0, 22.0, 40.0, 44.0]),
    st.integers(1, 400).map(lambda n: n / 4),
)
face = st.tuples(quarter, quarter, side, side, st.sampled_from([False, False, False, True]))
scene = st.lists(face, max_size=12)


@settings(max_examples=60)
@given(
    images=st.lists(scene, min_size=1, max_size=3),
    branch=st.sampled_from(get_variant("25L8S").branches[:5]),
    reg_norm=st.sampled_from(["scale", "rf"]),
    measure=st.sampled_from(["longer", "shorter", "sqrt_area"]),
    min_face=st.sampled_from([0, 8, 12]),
)
def test_random_scenes_equal_plain_loops(
    images: list, branch: Branch, reg_norm: str, measure: str, min_face: float
) -> None:
    map_size = (150 // branch.rf.stride, 130 // branch.rf.stride)
    images = [[(x, y, x + w, y + h, ignored) for x, y, w, h, ignored in faces] for faces in images]
    labels = label(
        branch, map_size, *images, reg_norm=reg_norm, scale_measure=measure, min_face=min_face
    )
    for index, faces in enumerate(images):
        score, mask, targets = label_image(
            branch,
            map_size,
            [face[:4] for face in faces],
            [face[4] for face in faces],
            divisor=branch.divisor(reg_norm),
            scale_measure=measure,
            min_face=min_face,
        )
        computed_score, computed_mask, computed_targets = as_arrays(labels, index)
        np.testing.assert_array_equal(computed_score, score)
        np.testing.assert_array_equal(computed_mask, mask)
        np.testing.assert_allclose(computed_targets, targets, rtol=1e-6, atol=1e-6)


def test_centers_on_the_border_are_inside() -> None:
    labels = label(FIRST, (10, 10), [(7, 11, 19, 22)])  # centers at 7, 11, 15, 19 and 11, 15, 19
    assert labels.positive[0].nonzero().tolist() == [
        [r, c] for r in (2, 3, 4) for c in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("longer_side", "state"),
    [(8.5, 0), (9, -1), (9.75, -1), (10, 1), (15, 1), (15.25, -1), (17, -1), (17.25, 0)],
)
def test_ranges_include_their_ends(longer_side: float, state: int) -> None:
    score, _, _ = as_arrays(label(FIRST, (10, 10), [(10, 10, 10 + longer_side, 18)]), 0)
    assert score[2, 3] == state  # center (15, 11)


def test_a_face_between_two_branches_answers_in_both() -> None:
    second = get_variant("25L8S").branches[1]
    for branch in (FIRST, second):
        assert label(branch, (10, 10), [(4, 4, 19, 19)]).positive.any()


def test_a_center_in_two_faces_is_ignored_for_score_and_box() -> None:
    labels = label(FIRST, (10, 10), [(6, 6, 18, 18), (14, 6, 26, 18)])
    score, mask, _ = as_arrays(labels, 0)
    assert score[1, 3] == -1  # center (15, 7)
    assert not mask[1, 3]
    assert score[1, 1] == score[1, 5] == 1


def test_gray_wins_the_score_but_not_the_box() -> None:
    labels = label(FIRST, (10, 10), [(6, 6, 18, 18), (14, 6, 30, 22)])
    score, mask, targets = as_arrays(labels, 0)
    assert score[1, 3] == -1  # center (15, 7) is in both
    assert mask[1, 3]
    assert targets[1, 3] * 7.5 == pytest.approx([15 - 6, 7 - 6, 15 - 18, 7 - 18])


def test_a_face_of_another_size_leaves_background() -> None:
    labels = label(FIRST, (10, 10), [(0, 0, 35, 35)])
    assert labels.negative.all()
    assert not len(labels.box_cells)


@pytest.mark.parametrize("branch", get_variant("25L8S").branches[:3], ids=lambda b: b.tap)
@pytest.mark.parametrize("face", [(5, 5, 17, 17, True), (14, 14, 21.5, 21, False)])
def test_ignored_and_tiny_faces_are_neither_on_any_branch(branch: Branch, face: tuple) -> None:
    score, mask, _ = as_arrays(label(branch, (6, 6), [face]), 0)
    at = (15 - branch.rf.start) // branch.rf.stride  # every stride has a center at (15, 15)
    assert score[at, at] == -1
    assert not mask.any()


def test_the_least_face_is_free() -> None:
    assert label(FIRST, (6, 6), [(14, 14, 21.5, 21)], min_face=0).negative.all()


def test_boxes_are_not_cut_at_the_border() -> None:
    score, mask, targets = as_arrays(label(FIRST, (4, 4), [(-8, -6, 5, 6)]), 0)
    assert score[0, 0] == 1  # center (3, 3); the face's size is 13 although 5 pixels are seen
    assert targets[0, 0] * 7.5 == pytest.approx([11, 9, -2, -3])
    assert mask.sum() == 1


def test_a_face_without_a_center_changes_nothing() -> None:
    branch = Variant("v", "DDDD SSSSSS", (4,) * 10, ("c10",), ((64, 128),)).branches[0]
    labels = label(branch, (6, 6), [(16, 16, 20, 100)])  # 64 <= 84 <= 128, between 15 and 31
    assert labels.negative.all()


def test_images_of_a_batch_do_not_mix() -> None:
    labels = label(FIRST, (10, 10), [], [(6, 6, 18, 18)], [])
    assert [bool(p.any()) for p in labels.positive] == [False, True, False]
    assert set(labels.box_cells[:, 0].tolist()) == {1}


@pytest.mark.parametrize("reg_norm", ["scale", "rf"])
def test_decoding_inverts_the_targets(reg_norm: str) -> None:
    faces = [(5.25, 7, 17, 16), (22, 20, 31, 34.5)]
    labels = label(FIRST, (10, 10), faces, reg_norm=reg_norm)
    _, rows, columns = labels.box_cells.unbind(1)
    boxes = decode_boxes(FIRST, labels.box_targets, rows, columns, reg_norm=reg_norm)
    assert len({tuple(b) for b in boxes.round(decimals=3).tolist()} - set(faces)) == 0
    assert len(boxes) == labels.positive.sum()


def test_a_crowd_costs_memory_linear_in_faces_and_cells() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 620, (709, 2))
    faces = torch.tensor(np.hstack([corners, corners + rng.uniform(5, 25, (709, 2))]))
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.untyped_storage().nbytes())
            return out

    with Watch():
        label_branch(FIRST, (159, 159), [faces], [torch.zeros(709, dtype=torch.bool)], **RULES)
    # Three int64 layers of the map; a faces x cells table takes 709 x 159 x 159 bytes at least.
    assert largest <= 3 * 8 * 160 * 160


def test_branches_labeled_together_are_those_labeled_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    branches = get_variant("25L8S").branches
    sizes = [(40, 37), (40, 37), (20, 18), (20, 18), (10, 9), (5, 4), (5, 4), (5, 4)]
    corners = 120 * torch.rand(30, 2, generator=generator)
    boxes = torch.cat([corners, corners + 9 + 40 * torch.rand(30, 2, generator=generator)], dim=1)
    images = [boxes[:10], boxes[:0], boxes[10:]]
    ignore = [torch.rand(len(b), generator=generator) < 0.2 for b in images]
    together = label_branches(branches, sizes, images, ignore, **RULES)
    for branch, size, labels in zip(branches, sizes, together):
        alone = label_branch(branch, size, images, ignore, **RULES)
        for name, value in vars(alone).items():
            assert torch.equal(getattr(labels, name), value), (branch.tap, name)
    assert sum(len(labels.box_cells) > 0 for labels in together) >= 4
    assert any(len(labels.box_cells) == 0 for labels in together)


def test_sizes() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 9.0]])
    sizes = [face_sizes(boxes, m).item() for m in ("longer", "shorter", "sqrt_area")]
    assert sizes == [9, 4, 6]
    with pytest.raises(ValueError, match="SCALE_MEASURE"):
        face_sizes(boxes, "height")
