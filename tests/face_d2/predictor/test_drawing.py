"""Drawn, blurred and cut-out faces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from face_d2.predictor.drawing import blur_faces, crop_faces, draw_faces, save_image
from face_d2.predictor.results import FaceResult, Found


def result_of(boxes: list[list[float]], size: tuple[int, int] = (100, 120)) -> FaceResult:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    found = Found(array, np.linspace(0.9, 0.8, len(array), dtype=np.float32), np.zeros(len(array)))
    return FaceResult.of_found(found, (1.0, 1.0), height=size[0], width=size[1])


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)


def test_nothing_found_changes_nothing(image: NDArray[np.uint8]) -> None:
    nothing = result_of([])
    np.testing.assert_array_equal(draw_faces(image, nothing), image)
    np.testing.assert_array_equal(blur_faces(image, nothing), image)
    assert list(crop_faces(image, nothing)) == []


def test_a_blurred_face_is_25_colours_and_the_rest_untouched(image: NDArray[np.uint8]) -> None:
    before = image.copy()
    blurred = blur_faces(image, result_of([[40, 30, 80, 70]]))
    np.testing.assert_array_equal(image, before)
    margin = np.ones(image.shape[:2], bool)
    margin[24:76, 34:86] = False
    np.testing.assert_array_equal(blurred[margin], image[margin])
    # Two faces of equal means are blurred to the same picture: nothing else is left of them.
    other = image.copy()
    other[24:76, 34:86] = cv2.resize(
        cv2.resize(image[24:76, 34:86], (5, 5), interpolation=cv2.INTER_AREA),
        (52, 52),
        interpolation=cv2.INTER_NEAREST,
    )
    again = blur_faces(other, result_of([[40, 30, 80, 70]]))
    assert np.abs(again.astype(int) - blurred).max() <= 12
    assert blurred[30:70, 40:80].std() < 0.3 * image[30:70, 40:80].std()


@pytest.mark.parametrize(
    "box", [[0, 0, 1, 1], [119, 99, 120, 100], [0, 0, 120, 100], [50, 0, 51, 100]]
)
def test_faces_at_borders(image: NDArray[np.uint8], box: list[float]) -> None:
    result = result_of([box])
    assert blur_faces(image, result).shape == draw_faces(image, result).shape == image.shape
    (crop,) = crop_faces(image, result)
    assert crop.shape[0] >= 1
    assert crop.shape[1] >= 1


def test_crops_have_a_margin_and_come_best_first(image: NDArray[np.uint8]) -> None:
    first, second = crop_faces(image, result_of([[40, 30, 80, 70], [0, 0, 8, 16]]))
    np.testing.assert_array_equal(first, image[20:80, 30:90])
    np.testing.assert_array_equal(second, image[:20, :10])


def test_a_drawn_box_is_where_the_face_is(image: NDArray[np.uint8]) -> None:
    drawn = draw_faces(np.zeros_like(image), result_of([[20, 30, 60, 80]]))
    assert drawn[55, 20].any()
    assert drawn[80, 40].any()
    assert not drawn[35:75, 25:55].any()
    assert drawn[20:29, 20:40].any()  # the score above


def test_saving(image: NDArray[np.uint8], tmp_path: Path) -> None:
    assert save_image(image, tmp_path / "new" / "a.png") == tmp_path / "new" / "a.png"
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "a.png")), image)
    assert save_image(image, tmp_path / "a.gif").name == "a.gif.png"
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        save_image(image, tmp_path / "file" / "a.png")
