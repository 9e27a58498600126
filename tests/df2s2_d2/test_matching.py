from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, pairwise_iou
from hypothesis import given, settings
from hypothesis import strategies as st
from references import df2s2_reference

from df2s2_d2.anchors import AnchorGrid, AnchorGridCache
from df2s2_d2.matching import FaceAnchorMatcher


def make_grid(sizes=((20, 24), (10, 12), (5, 6)), strides=(4, 8, 16), offset=0.5) -> AnchorGrid:
    generator = DefaultAnchorGenerator(
        sizes=[[4.0 * s, 4.0 * s * 2 ** (1 / 3)] for s in strides],
        aspect_ratios=[[1.0, 1.5]],
        strides=list(strides),
        offset=offset,
    )
    return AnchorGrid.build(list(generator.cell_anchors), list(strides), offset, list(sizes))


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_grid_equals_detectron2s_anchor_generator(offset: float) -> None:
    sizes, strides = ((7, 9), (4, 5)), (4, 8)
    generator = DefaultAnchorGenerator(
        sizes=[[16.0, 20.0], [32.0, 40.0]],
        aspect_ratios=[[1.0, 1.5]],
        strides=list(strides),
        offset=offset,
    )
    grid = AnchorGrid.build(list(generator.cell_anchors), list(strides), offset, list(sizes))
    expected = generator([torch.zeros(1, 1, *size) for size in sizes])
    assert torch.equal(grid.boxes, Boxes.cat(expected).tensor)
    assert grid.levels.tolist() == [0] * (7 * 9 * 4) + [1] * (4 * 5 * 4)


def test_grids_are_built_once_a_size() -> None:
    shapes = [torch.tensor([[-8.0, -8, 8, 8]]), torch.tensor([[-16.0, -16, 16, 16]])]
    grids = AnchorGridCache(keep=2)

    def grid(side: int) -> AnchorGrid:
        return grids(shapes, [4, 8], 0.5, [(side, side), (side // 2, side // 2)])

    first = grid(4)
    assert grid(4) is first
    assert len(grid(6).boxes) == 36 + 9
    assert grid(4) is first
    grid(8)  # 6 has to go
    assert grid(4) is first
    moved = [s.double() for s in shapes]  # as a model's buffers when it moves
    again = grids(moved, [4, 8], 0.5, [(4, 4), (2, 2)])
    assert again is not first
    assert again.boxes.dtype == torch.float64
    assert copy.deepcopy(grids)(shapes, [4, 8], 0.5, [(4, 4), (2, 2)]) is not first
    pickle.loads(pickle.dumps(grids))


def test_grids_of_inference_mode_are_not_learned_with() -> None:
    shapes, grids = [torch.tensor([[-8.0, -8, 8, 8]])], AnchorGridCache()
    with torch.inference_mode():
        assert grids(shapes, [4], 0.5, [(3, 3)]).boxes.is_inference()
    learned = torch.ones(1, requires_grad=True)
    (learned * grids(shapes, [4], 0.5, [(3, 3)]).boxes).sum().backward()  # keeps the boxes
    assert learned.grad is not None


def test_what_is_traced_is_not_kept() -> None:
    """A trace lays the anchors of any size; a stand-in without values leaves no trace behind."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    shapes, grids = [torch.tensor([[-8.0, -8, 8, 8]])], AnchorGridCache()

    def boxes(features: torch.Tensor) -> torch.Tensor:
        return grids(shapes, [4], 0.5, [tuple(features.shape[-2:])]).boxes

    boxes(torch.zeros(3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(boxes, torch.zeros(3, 4))
    for size in ((3, 4), (5, 2)):
        found = traced(torch.zeros(size))
        assert torch.equal(found, AnchorGrid.build(shapes, [4], 0.5, [size]).boxes)
    mode = FakeTensorMode()
    with mode:
        grids([mode.from_tensor(shapes[0])], [4], 0.5, [(7, 7)])
    assert type(boxes(torch.zeros(7, 7))) is torch.Tensor


@st.composite
def scenes(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    # Whole and half pixels make ties likely: equal IoUs, a face on a cell border, equal faces.
    count = draw(st.integers(0, 7))
    coordinate = st.integers(-20, 220).map(lambda v: v / 2)
    side = st.integers(2, 300).map(lambda v: v / 2)
    rows = [
        (x, y, x + w, y + h)
        for x, y, w, h in (
            (draw(coordinate), draw(coordinate), draw(side), draw(side)) for _ in range(count)
        )
    ]
    ignore = [draw(st.booleans()) for _ in range(count)]
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return boxes, torch.tensor(ignore, dtype=torch.bool)


@settings(max_examples=60)
@given(
    scenes(),
    st.sampled_from([(0.4, 0.5), (0.5, 0.5), (0.3, 0.7)]),
    st.sampled_from([0.05, 0.2, 0.45, 1.0]),
    st.sampled_from([1, 2, 6, 1000]),
)
def test_labels_equal_plain_loops(
    scene: tuple[torch.Tensor, torch.Tensor],
    thresholds: tuple[float, float],
    floor: float,
    topk: int,
) -> None:
    boxes, ignore = scene
    grid = make_grid(sizes=((10, 12), (5, 6), (3, 3)))
    found = FaceAnchorMatcher(thresholds, floor, topk)(grid, boxes, ignore)
    anchors, levels = grid.boxes.numpy(), grid.levels.numpy()
    labels, faces = df2s2_reference.match(
        anchors, levels, boxes.numpy(), ignore.numpy(), *thresholds, floor, topk
    )
    assert found.labels.tolist() == labels.tolist()
    assert found.faces.tolist() == faces.tolist()


def test_no_pair_is_lost_to_the_windows() -> None:
    """Every IoU of the whole matrix that reaches the threshold is among the windows' pairs.

    The windows hold hardly any other pair, or a crowd would cost more than its matches.
    """
    from df2s2_d2 import matching

    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(400, 2, generator=generator) * torch.tensor([100.0, 80.0]) - 5
    sides = 2 ** (torch.rand(400, 2, generator=generator) * 6 + 1)
    boxes = torch.cat([corner, corner + sides], 1)
    grid = make_grid()
    whole = pairwise_iou(Boxes(boxes), Boxes(grid.boxes))
    for threshold in (0.1, 0.35, 0.5):
        face, anchor, iou = matching._pairs(grid, boxes, threshold)
        assert len({(f, a) for f, a in zip(face.tolist(), anchor.tolist())}) == len(face)
        assert torch.allclose(whole[face, anchor], iou)
        compared = sum(len(part) for part, _ in matching._windows(grid, boxes, threshold))
        assert compared <= 1.5 * len(face)
        missing = whole >= threshold + 1e-5
        missing[face, anchor] = False
        assert not missing.any()
        assert (whole >= threshold).sum() > 500  # the comparison is not an empty one


@settings(max_examples=30)
@given(st.lists(scenes(), min_size=1, max_size=4))
def test_images_of_a_batch_do_not_see_each_other(
    batch: list[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    grid, matcher = make_grid(), FaceAnchorMatcher((0.4, 0.5), 0.2)
    together = matcher.label_batch(grid, *zip(*batch))
    assert len(together) == len(batch)
    for found, (boxes, ignore) in zip(together, batch):
        alone = matcher(grid, boxes, ignore)
        for name in ("labels", "faces", "forced", "on_level"):
            assert torch.equal(getattr(found, name), getattr(alone, name)), name


def test_blocks_do_not_change_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    from df2s2_d2 import matching

    generator = torch.Generator().manual_seed(5)
    corner = torch.rand(60, 2, generator=generator) * 80
    boxes = torch.cat([corner, corner + 8 + 30 * torch.rand(60, 2, generator=generator)], 1)
    ignore = torch.zeros(60, dtype=torch.bool)
    matcher = FaceAnchorMatcher((0.4, 0.5), 0.2)
    at_once = matcher(make_grid(), boxes, ignore)
    monkeypatch.setattr(matching, "_PAIRS_AT_A_TIME", 50)
    in_blocks = matcher(make_grid(), boxes, ignore)
    assert torch.equal(at_once.labels, in_blocks.labels)
    assert torch.equal(at_once.faces, in_blocks.faces)


def test_forced_match_respects_the_floor_and_other_faces() -> None:
    grid = make_grid(sizes=((4, 4),), strides=(16,))  # anchors of 64 and 81 px
    face = torch.tensor([[10.0, 10.0, 40.0, 40.0]])  # best IoU 900 / 4096 = 0.2197
    none = torch.tensor([False])
    assert FaceAnchorMatcher((0.4, 0.5), 0.21)(grid, face, none).labels.sum() > 0
    found = FaceAnchorMatcher((0.4, 0.5), 0.23)(grid, face, none)
    assert found.labels.abs().sum() == 0
    assert found.on_level.tolist() == [[True]]  # shown on the level that fits best all the same


def test_a_face_without_an_anchor_takes_its_best_ones() -> None:
    grid = make_grid(sizes=((20, 24),), strides=(4,))
    face = torch.tensor([[20.0, 21.0, 29.0, 31.0]])  # 9 x 10 on anchors from 13 x 20 on
    none = torch.tensor([False])
    overlap = pairwise_iou(Boxes(face), Boxes(grid.boxes))[0]
    assert 0.2 < overlap.max() < 0.4
    for topk in (1, 5, 12):
        found = FaceAnchorMatcher((0.4, 0.5), 0.2, topk)(grid, face, none)
        taken = found.labels == 1
        assert taken.equal(found.forced)
        assert taken.sum() >= topk
        last = overlap.sort(descending=True).values[topk - 1]
        assert (overlap[taken] >= last - 1e-6).all()
        assert taken[overlap > last + 1e-6].all()
    floor = float(overlap.sort(descending=True).values[3]) - 1e-4
    found = FaceAnchorMatcher((0.4, 0.5), floor, 1000)(grid, face, none)
    assert taken.sum() > (found.labels == 1).sum() >= 4


def test_faces_below_min_face_are_neither_faces_nor_background() -> None:
    """Also where no anchor is near their size; the longer side counts, and others see no change."""
    grid = make_grid()
    none = torch.zeros(3, dtype=torch.bool)
    boxes = torch.tensor([[20.0, 20, 23, 24], [40.0, 30, 45, 38], [60.0, 40, 76, 58]])
    plain = FaceAnchorMatcher((0.4, 0.5), 0.2)(grid, boxes, none)
    assert (plain.labels[plain.faces == 0] != -1).any()
    found = FaceAnchorMatcher((0.4, 0.5), 0.2, min_face=8)(grid, boxes, none)
    assert found.ignore.tolist() == [True, False, False]
    assert found.on_level.any(dim=1).tolist() == [False, True, True]
    # In place of the face of 3 x 4 pixels, what a face of the smallest anchors' sides would shun.
    middle = torch.tensor([[21.5, 22.0]])
    half = grid.shape_sizes.amin(dim=0) / 2
    others = torch.cat([torch.cat([middle - half, middle + half], 1), boxes[1:]])
    expected = FaceAnchorMatcher((0.4, 0.5), 0.2)(grid, others, torch.tensor([True, False, False]))
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.faces, expected.faces)
    ignored = found.labels[(plain.labels == 0) & (found.labels != 0)]
    assert len(ignored) > 10
    assert (ignored == -1).all()
    every = FaceAnchorMatcher((0.4, 0.5), 0.2, min_face=19)(grid, boxes, none)
    assert (every.labels != 1).all()
    assert every.ignore.all()


@settings(max_examples=60)
@given(scenes())
def test_levels_by_plain_loops(scene: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The levels of a face's own anchors; without an anchor, the level that fits its shape best."""
    boxes, ignore = scene
    grid = make_grid(sizes=((10, 12), (5, 6), (3, 3)))
    found = FaceAnchorMatcher((0.4, 0.5), 0.45)(grid, boxes, ignore)
    for face, (box, ignored) in enumerate(zip(boxes, ignore.tolist())):
        levels = found.on_level[face].nonzero()[:, 0].tolist()
        own = grid.levels[(found.labels == 1) & (found.faces == face)].unique().tolist()
        if ignored or own:
            assert levels == ([] if ignored else own)
            continue
        corner = torch.zeros_like(grid.shape_sizes)
        shapes = Boxes(torch.cat([corner - grid.shape_sizes, corner + grid.shape_sizes], dim=1) / 2)
        size = (box[2:] - box[:2])[None]
        fit = pairwise_iou(Boxes(torch.cat([-size, size], dim=1) / 2), shapes)[0]
        best = fit >= fit.max() - 1e-6
        (level,) = levels
        assert best[grid.shape_levels == level].any()


def test_nth_largest_of_a_group() -> None:
    from df2s2_d2.matching import _nth_largest

    group = torch.tensor([3, 0, 3, 0, 1, 3, 1, 4])
    value = torch.tensor([0.3, 0.5, 0.9, 0.2, 0.8, 0.6, 0.7, 0.4])
    for n, expected in (
        (1, [0.5, 0.8, 0.0, 0.9, 0.4, 0.0]),
        (2, [0.2, 0.7, 0.0, 0.6, 0.4, 0.0]),
        (3, [0.2, 0.7, 0.0, 0.3, 0.4, 0.0]),
        (5, [0.2, 0.7, 0.0, 0.3, 0.4, 0.0]),
    ):
        assert _nth_largest(group, value, n, 6).tolist() == pytest.approx(expected)


def test_levels_of_faces() -> None:
    grid = make_grid(sizes=((20, 24), (10, 12)), strides=(4, 8))
    boxes = torch.tensor([[20.0, 20, 36, 36], [16.0, 16, 56, 56], [4.0, 4, 20, 20]])
    ignore = torch.tensor([False, False, True])
    found = FaceAnchorMatcher((0.4, 0.5), 0.2)(grid, boxes, ignore)
    assert found.on_level.tolist() == [[True, False], [False, True], [False, False]]


CROWD = """
import resource, sys, torch
import df2s2_d2
from df2s2_d2.anchors import AnchorGrid
from df2s2_d2.matching import FaceAnchorMatcher
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

strides = [4, 8, 16, 32, 64, 128]
generator = DefaultAnchorGenerator(
    sizes=[[4.0 * s * 2 ** (i / 3) for i in range(3)] for s in strides],
    aspect_ratios=[[1.0, 1.5]], strides=strides, offset=0.5)
sizes = [(-(-800 // s), -(-1333 // s)) for s in strides]
grid = AnchorGrid.build(list(generator.cell_anchors), strides, 0.5, sizes)
rng = torch.Generator().manual_seed(0)
center = torch.rand(2000, 2, generator=rng) * torch.tensor([1333.0, 800.0])
half = 4 * 2 ** (torch.rand(2000, 1, generator=rng) * 4) * torch.tensor([0.5, 0.65])
boxes = torch.cat([center - half, center + half], 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = FaceAnchorMatcher((0.4, 0.5), 0.2)(grid, boxes, torch.zeros(2000, dtype=torch.bool))
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert len(grid.boxes) > 530_000 and (found.labels == 1).sum() > 2000
assert found.on_level.any(dim=1).all()
print(grown / (1024**2 if sys.platform == "darwin" else 1024))
"""


def test_crowd_fits_in_memory() -> None:
    """2,000 faces on 800 x 1333 take 300 MB at most; the whole IoU matrix would be 4 GB."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CROWD], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 300


@pytest.mark.parametrize(
    ("thresholds", "floor", "key"),
    [
        ((0.6, 0.5), 0.2, "IOU_THRESHOLDS"),
        ((0.0, 0.5), 0.2, "IOU_THRESHOLDS"),
        ((0.4, 0.5), 0.0, "LOW_QUALITY_MIN_IOU"),
    ],
)
def test_thresholds_out_of_range(thresholds: tuple, floor: float, key: str) -> None:
    with pytest.raises(ValueError, match=key):
        FaceAnchorMatcher(thresholds, floor)


def test_counts_and_sizes_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"LOW_QUALITY_TOPK is 0"):
        FaceAnchorMatcher((0.4, 0.5), 0.2, 0)
    with pytest.raises(ValueError, match=r"MIN_FACE is -1"):
        FaceAnchorMatcher((0.4, 0.5), 0.2, min_face=-1)


def test_reference_iou_by_hand() -> None:
    a, b = np.array([0.0, 0, 4, 4]), np.array([2.0, 2, 6, 6])
    assert df2s2_reference.iou(a, b) == pytest.approx(4 / 28)
