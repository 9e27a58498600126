"""Resizing equals that of evaluation, whose filter is Detectron2's."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given
from hypothesis import strategies as st

from face_d2.data.augmentation import BoundedResize
from face_d2.ops.resize import SizeRule, resize


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    min_size=st.integers(16, 1200),
    max_size=st.sampled_from([0, 1333, 100000]),
)
def test_sizes_are_those_of_evaluation(
    height: int, width: int, min_size: int, max_size: int
) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    rule = BoundedResize(min_size, max_size or sys.maxsize).get_transform(image)
    expected = (height, width) if isinstance(rule, T.NoOpTransform) else (rule.new_h, rule.new_w)
    assert SizeRule(min_size, max_size).resized(height, width) == expected


def test_size_0_leaves_the_image_alone() -> None:
    assert SizeRule(0, 100).resized(300, 7) == (300, 7)


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    new=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 99),
)
def test_pixels_are_those_of_detectron2(
    size: tuple[int, int], new: tuple[int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = T.ResizeTransform(*size, *new).apply_image(image)
    np.testing.assert_array_equal(resize(image, *new), expected)
    reversed_channels = resize(image[:, :, ::-1], *new)
    np.testing.assert_array_equal(reversed_channels, expected[:, :, ::-1])


@pytest.mark.parametrize(("pixels", "side"), [(6400, 0), (6400, 20), (25600, 80)])
def test_pixels_the_network_works_on(pixels: int, side: int) -> None:
    rule = SizeRule(min_side=side)
    assert rule.searched_pixels(40, 160) == pytest.approx(pixels)
