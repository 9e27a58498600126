"""Tiles by hand; a detector of squares finds every square once, wherever the seams run."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from helpers.square_scenes import SquareDetector, assert_each_found_once, boxes_of, draw
from hypothesis import given, settings
from hypothesis import strategies as st

from face_d2.ops.tiling import detect_tiled, min_max_pixels, tile_boxes

CAP, OVERLAP = 100 * 100, 32  # tiles of at most 100 x 100 that share 44


def test_layouts_by_hand() -> None:
    assert tile_boxes(50, 60, 100, 10).tolist() == [[0, 0, 60, 50]]
    assert tile_boxes(100, 100, 100, 10).tolist() == [[0, 0, 100, 100]]
    # 190 = 2 x 100 - 10; one pixel more takes three tiles, and they are smaller then.
    assert tile_boxes(50, 190, 100, 10).tolist() == [[0, 0, 100, 50], [90, 0, 190, 50]]
    assert tile_boxes(50, 191, 100, 10)[:, [0, 2]].tolist() == [[0, 71], [61, 132], [120, 191]]
    assert tile_boxes(190, 190, 100, 10).tolist() == [
        [0, 0, 100, 100],
        [90, 0, 190, 100],
        [0, 90, 100, 190],
        [90, 90, 190, 190],
    ]
    assert tile_boxes(300, 300, (300, 100), 20, align=16)[:, [0, 2]].tolist() == [
        [0, 100],
        [80, 180],
        [160, 260],
        [208, 300],
    ]


@settings(max_examples=300)
@given(st.data())
def test_tiles_cover_overlap_and_align(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 2000))
    overlap, align = data.draw(st.integers(0, 60)), data.draw(st.sampled_from([1, 8, 32]))
    tile = data.draw(st.integers(overlap + align, 500))
    spans = tile_boxes(1, length, tile, overlap, align)[:, [0, 2]].tolist()
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    for start, end in spans:
        assert 0 < end - start <= tile
        assert start % align == 0
    for (start, end), (next_start, next_end) in pairwise(spans):
        assert start < next_start
        assert end < next_end
        assert end - next_start >= overlap


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, 5, 1), "height is 0"),
        ((10, 10, 5, -1), "overlap is -1"),
        ((10, 10, 5, 1, 0), "align is 0"),
        ((10, 10, 5, 5), "at least 6"),
        ((100, 100, 40, 20, 32), "at least 52"),
    ],
)
def test_impossible_layouts(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tile_boxes(*arguments)


def test_an_image_within_the_cap_is_shown_as_it_is() -> None:
    squares = [(3, 5, 20), (60, 60, 30)]
    image = draw(100, 100, squares)
    detect = SquareDetector()
    seen = []
    rows = detect_tiled(lambda x: (seen.append(x), detect(x))[1], image, max_pixels=CAP, overlap=32)
    assert len(seen) == 1
    assert seen[0] is not None
    assert np.shares_memory(seen[0], image)
    assert seen[0].shape == image.shape
    expected = detect(image)
    assert sorted(rows.tolist()) == sorted(expected.tolist())
    assert (np.diff(rows[:, 4]) <= 0).all()


@pytest.mark.parametrize("side", [2, 9, 31, 32])
def test_every_position_across_seams_and_corners(side: int) -> None:
    """One square slides over the seams of both axes; up to the overlap it is found to the pixel."""
    size = 160
    assert len(tile_boxes(size, size, 100, 44)) == 9
    for left in range(0, size - side + 1, 3):
        top = (7 * left + side) % (size - side + 1)
        for x, y in ((left, top), (left, left)):
            rows = detect_tiled(
                SquareDetector(), draw(size, size, [(x, y, side)]), max_pixels=CAP, overlap=OVERLAP
            )
            assert rows[:, :4].tolist() == boxes_of([(x, y, side)]).tolist()


@st.composite
def scenes(draw_from: st.DrawFn) -> tuple[int, int, list[tuple[int, int, int]]]:
    """Squares of 2 to 150 pixels, 16 pixels apart, so that they stay apart when halved."""
    height, width = draw_from(st.integers(60, 330)), draw_from(st.integers(60, 330))
    squares: list[tuple[int, int, int]] = []
    for _ in range(draw_from(st.integers(1, 8))):
        side = draw_from(st.integers(2, min(150, height, width)))
        left = draw_from(st.integers(0, width - side))
        top = draw_from(st.integers(0, height - side))
        apart = (
            left >= x + s + 16 or x >= left + side + 16 or top >= y + s + 16 or y >= top + side + 16
            for x, y, s in squares
        )
        if all(apart):
            squares.append((left, top, side))
    return height, width, squares


@settings(max_examples=150)
@given(scenes(), st.sampled_from([1, 8, 16]))
def test_every_square_is_found_once(scene: tuple, align: int) -> None:
    height, width, squares = scene
    detect = SquareDetector()
    rows = detect_tiled(
        detect, draw(height, width, squares), max_pixels=CAP, overlap=OVERLAP, align=align
    )
    assert max(detect.pixels_seen) <= CAP
    assert_each_found_once(rows, squares, 0.75)
    exact = [box for box in boxes_of(squares).tolist() if box[2] - box[0] <= OVERLAP]
    assert all(box in rows[:, :4].tolist() for box in exact)


@settings(max_examples=150)
@given(scenes())
def test_a_sloppy_detector_finds_every_square_once(scene: tuple) -> None:
    """Tiles that disagree by some per cent about a face neither lose nor double it."""
    height, width, squares = scene
    squares = [square for square in squares if square[2] >= 6]
    rows = detect_tiled(
        SquareDetector(sloppiness=0.04),
        draw(height, width, squares),
        max_pixels=CAP,
        overlap=OVERLAP,
        iou_threshold=0.4,
    )
    assert_each_found_once(rows, squares, 0.6)


@pytest.mark.parametrize("size", [(1200, 50), (50, 1200), (40, 900), (333, 421)])
def test_elongated_images_take_tiles_as_wide_as_they_are(size: tuple[int, int]) -> None:
    squares = [(2, 3, 20), (size[1] // 2 - 10, size[0] // 2 - 10, 20)]
    detect = SquareDetector()
    rows = detect_tiled(detect, draw(*size, squares), max_pixels=CAP, overlap=OVERLAP)
    assert_each_found_once(rows, squares, 1.0)
    assert max(detect.pixels_seen) <= CAP
    assert sum(detect.pixels_seen) < 8 * size[0] * size[1]


def test_faces_beyond_the_detectors_range_appear_in_halved_images() -> None:
    """The detector sees sides of 4 to 40; the image has 6 to 300."""
    squares = [(10, 10, 300), (330, 20, 30), (330, 80, 70), (20, 330, 6), (120, 330, 60)]
    image = draw(420, 420, squares)
    rows = detect_tiled(SquareDetector(4, 40), image, max_pixels=CAP, overlap=OVERLAP)
    assert_each_found_once(rows, squares, 0.9)


def test_boxes_of_the_finest_image_are_kept() -> None:
    """A face within a tile keeps its own box, whatever the halved image says and scores."""

    def detect(image: np.ndarray) -> np.ndarray:
        rows = SquareDetector()(image)
        rows[:, 4] = 1 / image.size
        return rows

    squares = [(3, 5, 50)]  # center 28, 30; the first tile ends at 98: 70 > 5/8 x 50
    rows = detect_tiled(detect, draw(150, 150, squares), max_pixels=CAP, overlap=OVERLAP)
    assert rows[:, :4].tolist() == [[3, 5, 53, 55]]


def test_columns_behind_the_score_are_carried_on() -> None:
    squares = [(10, 10, 20), (200, 180, 24)]

    def detect(image: np.ndarray) -> np.ndarray:
        rows = SquareDetector()(image)
        return np.column_stack([rows, (rows[:, 2] - rows[:, 0]) * 10])

    rows = detect_tiled(detect, draw(240, 260, squares), max_pixels=CAP, overlap=OVERLAP)
    assert sorted(rows[:, 5].tolist()) == [200, 240]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("size", [(201, 203), (200, 202)])
def test_halves_are_means(dtype: type, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*size, 3)).astype(dtype)
    seen = []

    def detect(part: np.ndarray) -> np.ndarray:
        seen.append(part)
        return np.zeros((0, 5))

    detect_tiled(detect, image, max_pixels=110 * 110, overlap=32)
    height, width = (-(-side // 2) for side in size)
    assert seen[-1].shape == (height, width, 3)
    assert seen[-1].dtype == dtype
    padded = np.pad(image, [(0, size[0] % 2), (0, size[1] % 2), (0, 0)], mode="edge")
    mean = padded.reshape(height, 2, width, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(seen[-1] - mean).max() <= 0.5


def bad(*shape: int, value: float = 0.0):
    return lambda image: np.full(shape, value)


@pytest.mark.parametrize(
    ("detect", "image", "options", "message"),
    [
        (bad(0, 5), np.zeros((10, 10)), {}, r"shape \(10, 10\).*channels"),
        (bad(0, 5), np.zeros((0, 10, 3)), {}, r"shape \(0, 10, 3\)"),
        (bad(0, 5), np.zeros((10, 10, 3)), {"overlap": 0}, "overlap is 0"),
        (bad(0, 5), np.zeros((10, 10, 3)), {"max_pixels": 400}, "at least 2025"),
        (bad(0, 4), np.zeros((10, 10, 3)), {}, r"shape \(0, 4\); expected \(N, 5 or more\)"),
        (bad(2, 5, value=np.nan), np.zeros((10, 10, 3)), {}, "not finite"),
    ],
)
def test_bad_input(detect, image: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detect_tiled(detect, image, **{"max_pixels": CAP, "overlap": OVERLAP, **options})


@pytest.mark.parametrize("align", [1, 32])
def test_the_smallest_cap_works(align: int) -> None:
    cap = min_max_pixels(OVERLAP, align)
    squares = [(40, 41, 30)]
    rows = detect_tiled(
        SquareDetector(), draw(90, 95, squares), max_pixels=cap, overlap=OVERLAP, align=align
    )
    assert_each_found_once(rows, squares, 1.0)
