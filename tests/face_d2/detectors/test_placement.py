from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from face_d2.detectors.placement import fit_inside, pad_to_multiple, stretch

IMAGE = np.arange(30 * 50 * 3, dtype=np.uint8).reshape(30, 50, 3)


def test_padding_leaves_the_pixels_and_adds_right_and_below():
    canvas, placement = pad_to_multiple(IMAGE, 32, 7)
    assert canvas.shape == (32, 64, 3)
    assert (canvas[:30, :50] == IMAGE).all()
    assert (canvas[30:] == 7).all()
    assert (canvas[:, 50:] == 7).all()
    assert_allclose(placement.to_image(np.array([[1.0, 2, 3, 4]])), [[1, 2, 3, 4]])


def test_an_image_of_the_right_size_is_not_copied():
    image = np.zeros((32, 64, 3), np.uint8)
    assert pad_to_multiple(image, 32)[0] is image


@pytest.mark.parametrize("centered", [False, True])
def test_an_image_fits_inside_with_its_aspect_and_boxes_come_back(centered):
    canvas, placement = fit_inside(IMAGE, (100, 100), value=9, centered=centered)
    assert canvas.shape == (100, 100, 3)
    top = 20 if centered else 0
    assert (canvas[top + 60 :] == 9).all()
    assert not (canvas[top : top + 60] == 9).all()
    corners = np.array([[0, top, 100, top + 60]], float)
    assert_allclose(placement.to_image(corners), [[0, 0, 50, 30]])


def test_a_stretched_image_fills_the_canvas_and_boxes_come_back():
    canvas, placement = stretch(IMAGE, (60, 200))
    assert canvas.shape == (60, 200, 3)
    assert_allclose(placement.to_image(np.array([[4.0, 2, 200, 60]])), [[1, 1, 50, 30]])


def test_boxes_are_cut_at_the_borders_only_when_asked():
    _, placement = pad_to_multiple(IMAGE, 32)
    box = np.array([[-5.0, -5, 60, 40]])
    assert_allclose(placement.to_image(box), box)
    assert_allclose(placement.to_image(box, clip=True), [[0, 0, 50, 30]])


def test_a_thin_strip_keeps_at_least_one_pixel():
    canvas, _ = fit_inside(np.zeros((2, 4000, 3), np.uint8), (64, 64))
    assert canvas.shape == (64, 64, 3)
