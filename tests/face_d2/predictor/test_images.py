"""Images of every make come out as the same BGR array."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers import image_files
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from face_d2.data.image_file import read_image
from face_d2.predictor import images
from face_d2.predictor.images import load_image


@pytest.fixture(scope="module")
def rgb() -> NDArray[np.uint8]:
    """A smooth picture, 50 x 70, so that lossy formats stay close to it."""
    y, x = np.mgrid[:50, :70]
    return np.stack([x * 3, y * 5, 255 - x - y], axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_files_are_read_exactly(rgb: NDArray[np.uint8], kind: str) -> None:
    data = encoded(Image.fromarray(rgb), kind)
    np.testing.assert_array_equal(load_image(data), rgb[:, :, ::-1])


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 95}),
        ("JPEG", "RGB", {"quality": 95, "progressive": True}),
        ("JPEG", "CMYK", {"quality": 95}),
        ("TIFF", "CMYK", {}),
        ("WEBP", "RGB", {"quality": 95}),
        ("WEBP", "RGB", {"lossless": True}),
        ("PNG", "P", {}),
        ("GIF", "P", {}),
    ],
)
def test_other_files_are_read_closely(
    rgb: NDArray[np.uint8], kind: str, mode: str, options: dict[str, Any]
) -> None:
    image = Image.fromarray(rgb)
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    data = encoded(image, kind, **options)
    difference = np.abs(load_image(data)[:, :, ::-1].astype(int) - rgb)
    assert difference.mean() < 4


def test_transparency_is_dropped(rgb: NDArray[np.uint8]) -> None:
    alpha = np.full((50, 70, 1), 7, np.uint8)
    rgba = np.concatenate([rgb, alpha], axis=2)
    expected = rgb[:, :, ::-1]
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(rgba), "PNG")), expected)
    np.testing.assert_array_equal(load_image(Image.fromarray(rgba)), expected)
    np.testing.assert_array_equal(load_image(rgba, "RGB"), expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_gray_in_every_form(rgb: NDArray[np.uint8], bits: int) -> None:
    gray = rgb[:, :, 0]
    deep = gray if bits == 8 else gray.astype(np.uint16) * 257
    expected = np.repeat(gray[:, :, None], 3, axis=2)
    png = cv2.imencode(".png", deep)[1].tobytes()
    for image in (deep, deep[:, :, None], png, Image.open(io.BytesIO(png))):
        np.testing.assert_array_equal(load_image(image), expected)


def test_16_bit_color(rgb: NDArray[np.uint8]) -> None:
    deep = rgb.astype(np.uint16) * 257
    np.testing.assert_array_equal(load_image(deep, "RGB"), rgb[:, :, ::-1])
    png = cv2.imencode(".png", deep)[1].tobytes()  # what is called BGR there is as good a picture
    np.testing.assert_array_equal(load_image(png), rgb)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_in_either_byte_order(rgb: NDArray[np.uint8], order: str) -> None:
    deep = (rgb.astype(np.uint16) * 257).astype(f"{order}u2")
    np.testing.assert_array_equal(load_image(deep), rgb)


def test_the_channel_order_of_arrays_is_what_is_said(rgb: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(load_image(rgb, "RGB"), load_image(rgb)[:, :, ::-1])
    np.testing.assert_array_equal(load_image(Image.fromarray(rgb)), load_image(rgb, "RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(
    rgb: NDArray[np.uint8], kind: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    path = tmp_path / f"image.{kind.lower()}"
    Image.fromarray(rgb).save(path, exif=exif, **options)
    stored = Image.open(path)
    stored.load()
    turned = kind == "TIFF" and not np.array_equal(stored, rgb)
    if turned and stored.getexif().get(0x0112, 1) != 1:
        pytest.skip("this Pillow turns a TIFF itself and leaves the tag that says to turn it")
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    from_file, from_pillow = load_image(path), load_image(Image.open(path))
    np.testing.assert_array_equal(from_pillow[:, :, ::-1], expected)
    assert from_file.shape == expected.shape
    assert np.abs(from_file[:, :, ::-1].astype(int) - expected).max() <= 2


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), "float32; expected uint8"),
        (np.zeros((4, 5, 3), bool), "bool; expected uint8"),
        (np.zeros((4, 5, 2), np.uint8), r"4 x 5 x 2; expected \(H, W\)"),
        (np.zeros((3, 40, 50), np.uint8), "move the channels last"),
        (np.zeros((2, 4, 5, 3), np.uint8), "as a list"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (b"", r"an image of 0 bytes cannot be decoded \(not an image, or an unsupported format"),
        (b"hello" * 100, r"an image of 500 bytes cannot be decoded \(not an image"),
        (b"\xff\xd8\xff", "an image of 3 bytes cannot be decoded"),
        (Image.new("F", (4, 4)), "mode F"),
        (Image.fromarray(np.full((4, 4), -1, np.int32)), "outside 0-65535"),
    ],
)
def test_what_is_no_image_is_named(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_image(image)


def test_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not int"):
        load_image(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"\.cpu\(\)\.numpy\(\)"):
        load_image(torch.zeros(3, 4, 4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not generator; .*stream\(\)"):
        load_image(pixels for pixels in [])  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg"):
        load_image(tmp_path / "missing.jpg")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ValueError, match='"BGR" or "RGB"'):
        load_image(np.zeros((4, 4, 3), np.uint8), "GBR")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_cut_files_are_errors_that_name_the_file(
    rgb: NDArray[np.uint8], kind: str, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = tmp_path / "cut.bin"
    for length in (1, 20, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            load_image(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_too_many_pixels_are_refused_by_the_header(
    rgb: NDArray[np.uint8], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(Image.fromarray(rgb), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50 * 70 / 2 - 1)
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 50 * 70 - 1)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("was decoded"))
    with pytest.raises(ValueError, match="3500 pixels"):
        load_image(data)
    for image in (rgb, Image.fromarray(rgb)):
        with pytest.raises(ValueError, match="50 x 70 pixels are more than"):
            load_image(image)


@pytest.mark.parametrize("name", image_files.READABLE)
def test_files_are_read_as_in_training(name: str, tmp_path: Path) -> None:
    """From a path and from bytes: the pixels of the training reader, and its size."""
    content, size = image_files.READABLE[name]
    path = tmp_path / "x.jpg"
    path.write_bytes(content())
    expected = read_image(path)
    assert expected.shape == (*size, 3)
    for image in (path, str(path), content()):
        np.testing.assert_array_equal(load_image(image), expected)
    # Of a Pillow image, what Pillow itself cannot read or keep is lost.
    if name not in ("12-bit-in-16-rgb", "large-profile", "large-text", "no-end-marker"):
        np.testing.assert_array_equal(load_image(Image.open(path)), expected)


def test_a_dark_pillow_image_is_not_searched_black() -> None:
    data = image_files.sixteen_bit(gray=False, unused=4)
    with pytest.raises(ValueError, match="Pillow keeps 8, so pass its path"):
        load_image(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("name", image_files.UNREADABLE)
def test_damaged_files_are_refused_as_in_training(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(image_files.UNREADABLE[name]())
    with pytest.raises(ValueError, match=r"x\.jpg cannot be decoded"):
        load_image(path)
    with pytest.raises(ValueError, match=r"an image of \d+ bytes cannot be decoded"):
        load_image(path.read_bytes())


def test_an_address_is_not_taken_for_a_file() -> None:
    with pytest.raises(
        ValueError, match=r"http://example\.com/a\.jpg is a URL, and images are not"
    ):
        load_image("http://example.com/a.jpg")
