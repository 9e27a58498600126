"""Drawn, blurred and cut-out faces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from face_d2.predictor.drawing import (
    STYLES,
    crop_faces,
    draw_faces,
    picture_name,
    redact_faces,
    save_image,
)
from face_d2.predictor.results import FaceResult, RawDetections
from face_d2.predictor.sources import Source


def result_of(boxes: list[list[float]], size: tuple[int, int] = (100, 120)) -> FaceResult:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    found = RawDetections(
        array, np.linspace(0.9, 0.8, len(array), dtype=np.float32), np.zeros(len(array))
    )
    return FaceResult.from_raw(found, (1.0, 1.0), height=size[0], width=size[1])


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)


def test_nothing_found_changes_nothing(image: NDArray[np.uint8]) -> None:
    nothing = result_of([])
    np.testing.assert_array_equal(draw_faces(image, nothing), image)
    np.testing.assert_array_equal(redact_faces(image, nothing.boxes), image)
    assert list(crop_faces(image, nothing)) == []


def test_a_blurred_face_is_25_colors_and_the_rest_untouched(image: NDArray[np.uint8]) -> None:
    before = image.copy()
    blurred = redact_faces(image, result_of([[40, 30, 80, 70]]).boxes)
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
    again = redact_faces(other, result_of([[40, 30, 80, 70]]).boxes)
    assert np.abs(again.astype(int) - blurred).max() <= 12
    assert blurred[30:70, 40:80].std() < 0.3 * image[30:70, 40:80].std()


@pytest.mark.parametrize(
    "box", [[0, 0, 1, 1], [119, 99, 120, 100], [0, 0, 120, 100], [50, 0, 51, 100]]
)
def test_faces_at_borders(image: NDArray[np.uint8], box: list[float]) -> None:
    result = result_of([box])
    assert redact_faces(image, result.boxes).shape == draw_faces(image, result).shape == image.shape
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


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [0, 2, 3, 4])
def test_hidden_faces_tell_at_most_25_colors(style: str, dtype: type, channels: int) -> None:
    """Of gray, color and transparent pictures; transparency and all outside stay as they are."""
    generator = np.random.default_rng(1)
    top = np.iinfo(dtype).max
    shape = (90, 110, channels) if channels else (90, 110)
    image = generator.integers(0, top, shape, dtype=dtype, endpoint=True)
    colors = {0: 1, 2: 1, 3: 3, 4: 3}[channels]
    hidden = redact_faces(image, [np.float32([30, 20, 70, 60])], style, colors)
    outside = np.ones((90, 110), bool)
    outside[14:66, 24:76] = False
    assert np.array_equal(hidden[outside], image[outside])
    if channels in (2, 4):
        assert np.array_equal(hidden[..., -1], image[..., -1])
    within = hidden.reshape(90, 110, -1)[14:66, 24:76, :colors]
    assert within.astype(float).std() < 0.35 * image.astype(float).std()
    if style != "blur":
        assert len(np.unique(within.reshape(-1, colors), axis=0)) <= 25


def test_a_black_box_is_black_in_printing_inks_too() -> None:
    inks = np.full((20, 20, 4), 90, np.uint8)
    hidden = redact_faces(inks, [np.float32([5, 5, 15, 15])], "box", colors=4)
    assert hidden[10, 10].tolist() == [0, 0, 0, 255]


def test_saving(image: NDArray[np.uint8], tmp_path: Path) -> None:
    save_image(image, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "a.png")), image)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        save_image(image, tmp_path / "file" / "a.png")
    with pytest.raises(OSError, match=r"cannot write 100 x 120 pixels as \.xyz"):
        save_image(image, tmp_path / "a.xyz")


def test_pictures_keep_the_names_of_files_whose_format_is_written() -> None:
    for kind, format_, expected in (
        ("image", "JPEG", "a.x"),
        ("image", "GIF", "a.x.png"),
        ("image", "HEIF", "a.x.png"),
        ("video", "MP4", "a.x.mp4"),
    ):
        assert picture_name(Source(kind, "/a.x", "a.x", format=format_)) == expected
    assert picture_name(Source("video", "/a.MP4", "a.MP4")) == "a.MP4"
