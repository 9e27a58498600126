from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from df2s2_d2 import DF2S2
from df2s2_d2.mask_sheet import mask_sheet
from df2s2_d2.segmentation import area_levels, box_mask, box_masks, segmentation_loss


def drawn(*rows: str) -> list[list[bool]]:
    return [[cell == "#" for cell in row] for row in rows]


def test_mask_by_hand() -> None:
    # Stride 4: cell centers at 2, 6, 10, 14, 18, 22.
    boxes = torch.tensor(
        [
            [4.0, 2.0, 12.0, 10.0],  # x 6, 10; y 2, 6 (2 is inside, 10 is past the end)
            [15.0, 9.0, 17.0, 11.0],  # holds the center of no column: the cell it lies in
            [20.0, 13.0, 99.0, 99.0],  # cut by the border
        ]
    )
    assert box_mask(boxes, 4, (5, 6)).tolist() == drawn(
        ".##...",
        ".##...",
        "....#.",
        ".....#",
        ".....#",
    )


def test_mask_of_no_face_and_of_faces_outside() -> None:
    assert not box_mask(torch.empty(0, 4), 8, (3, 3)).any()
    outside = torch.tensor([[-20.0, -20, -10, -10], [30.0, 30, 40, 40], [-9.0, 2, -8, 9]])
    assert not box_mask(outside, 8, (3, 3)).any()


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(*[st.integers(-30, 130)] * 2, *[st.integers(1, 140)] * 2), min_size=1, max_size=6
    ),
    st.sampled_from([4, 8, 16]),
)
def test_mask_equals_cell_by_cell(rows: list[tuple[int, ...]], stride: int) -> None:
    boxes = torch.tensor([(x / 2, y / 2, (x + w) / 2, (y + h) / 2) for x, y, w, h in rows])
    size = (64 // stride, 48 // stride)
    expected = np.zeros(size, bool)
    for x1, y1, x2, y2 in boxes.tolist():
        hit = {}
        for axis, (low, high, count) in {"x": (x1, x2, size[1]), "y": (y1, y2, size[0])}.items():
            cells = [c for c in range(-40, 80) if low <= (c + 0.5) * stride < high]
            hit[axis] = [c for c in cells or [int((low + high) / 2 // stride)] if 0 <= c < count]
        for y in hit["y"]:
            for x in hit["x"]:
                expected[y, x] = True
    assert box_mask(boxes, stride, size).tolist() == expected.tolist()


def test_masks_at_once_equal_masks_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    corner = 130 * torch.rand(40, 2, generator=generator) - 30
    boxes = torch.cat([corner, corner + 1 + 30 * torch.rand(40, 2, generator=generator)], 1)
    mask = torch.randint(-1, 4, (40,), generator=generator)
    found = box_masks(boxes, mask, 5, 4, (12, 20))  # the last one shows no box
    assert found.shape == (5, 12, 20)
    for index, painted in enumerate(found):
        assert torch.equal(painted, box_mask(boxes[mask == index], 4, (12, 20)))
    assert found[:4].flatten(1).any(dim=1).all()


def test_the_loss_of_a_batch_is_made_of_its_images() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = [torch.randn(3, 1, 8, 8, generator=generator)]
    corner = 24 * torch.rand(9, 2, generator=generator)
    faces = torch.cat([corner, corner + 4 + 8 * torch.rand(9, 2, generator=generator)], 1)
    ignored, shown = torch.tensor([0, 0, 0, 1, 0, 0, 0, 0, 1]).bool(), torch.ones(9, 1).bool()
    parts = [part.split([5, 0, 4]) for part in (faces, ignored, shown)]
    whole = segmentation_loss(logits, *parts, [4], "sum")
    alone = [
        segmentation_loss([logits[0][i : i + 1]], *[[part[i]] for part in parts], [4], "sum")
        for i in range(3)
    ]
    assert float(whole) == pytest.approx(float(sum(alone)) / 3)


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_a_sheet_shows_image_targets_and_predictions(
    tiny_model: Callable[..., DF2S2], tmp_path: Path, order: str
) -> None:
    model = tiny_model("INPUT.FORMAT", order).eval()
    red = torch.zeros(3, 64, 128, dtype=torch.uint8)
    red[order.index("R")] = 255
    faces = Instances((64, 128))
    faces.gt_boxes, faces.gt_classes = Boxes([[8.0, 8, 40, 40]]), torch.zeros(1, dtype=torch.int64)
    path = mask_sheet(model, [{"image": red, "instances": faces}] * 2, tmp_path / "masks.png")
    sheet = cv2.imread(str(path))
    height, width = sheet.shape[0] // 2, sheet.shape[1] // (1 + len(model.strides))
    np.testing.assert_array_equal(sheet[:height], sheet[height:])  # the same image twice
    # Below a caption, 128 pixels are enlarged to 200.
    tiles = [sheet[18:118, left : left + 200] for left in range(0, sheet.shape[1], width)]
    assert (tiles[0] == [0, 0, 255]).all()  # red, in OpenCV's order
    shapes = [tuple(mask.shape[2:]) for mask in model.segment(torch.zeros(1, 3, 64, 128))]
    on_level = model.levels_of_faces(faces, shapes)[0].tolist()
    assert any(on_level)
    for here, tile in zip(on_level, tiles[1:]):
        white = (tile > 127).all(axis=2)
        assert white[round(24 / 0.64), round(24 / 0.64)] == here
        assert not white[:, round(80 / 0.64) :].any()


def test_a_sheet_that_cannot_be_drawn_is_named(
    tiny_model: Callable[..., DF2S2], tmp_path: Path
) -> None:
    model = tiny_model().eval()
    with pytest.raises(ValueError, match="there is no image to draw masks for"):
        mask_sheet(model, [], tmp_path / "masks.png")
    (tmp_path / "masks.png").mkdir()
    faces = Instances((64, 64))
    faces.gt_boxes, faces.gt_classes = Boxes(torch.zeros(0, 4)), torch.zeros(0, dtype=torch.int64)
    item = {"image": torch.zeros(3, 64, 64, dtype=torch.uint8), "instances": faces}
    with pytest.raises(OSError, match=r"masks\.png cannot be written"):
        mask_sheet(model, [item], tmp_path / "masks.png")


def test_levels_by_area() -> None:
    # FAN's range: sides from 0.71 to 2.23 times the base; neighboring levels overlap.
    sides = torch.tensor([11.0, 12.0, 20.0, 35.0, 36.0, 500.0])
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), sides, sides], 1)
    shown = area_levels(boxes, torch.tensor([16.0, 32.0]))
    assert shown.tolist() == [
        [False, False],
        [True, False],
        [True, False],
        [True, True],
        [False, True],
        [False, False],
    ]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_by_hand_with_ignored_pixels(reduction: str) -> None:
    logits = [torch.full((1, 1, 2, 2), 0.0), torch.full((1, 1, 1, 1), 2.0)]
    boxes = [torch.tensor([[0.0, 0, 4, 4], [4.0, 4, 8, 8]])]
    ignore = [torch.tensor([False, True])]
    on_level = [torch.tensor([[True, False], [False, False]])]
    loss = segmentation_loss(logits, boxes, ignore, on_level, [4, 8], reduction)
    # Level 1: the face's cell is (0, 0), the ignored one's (1, 1): three cells of log 2 count.
    # Level 2: the center of its one cell, (4, 4), lies in the ignored face, so nothing counts.
    level1 = 3 * np.log(2.0)
    expected = level1 / 3 if reduction == "mean" else level1
    assert float(loss) == pytest.approx(expected)


def test_a_face_over_an_ignored_one_counts() -> None:
    box = torch.tensor([[0.0, 0, 8, 8], [0.0, 0, 8, 8]])
    loss = segmentation_loss(
        [torch.zeros(1, 1, 2, 2)],
        [box],
        [torch.tensor([False, True])],
        [torch.tensor([[True], [False]])],
        [4],
        "sum",
    )
    assert float(loss) == pytest.approx(4 * np.log(2.0))
