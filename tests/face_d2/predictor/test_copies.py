"""Copies of pictures differ from them in the faces alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from face_d2.data.file_kind import kind_of_file
from face_d2.predictor.copies import Page, PictureSink, copy_format, read_pages_as_stored

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 2**16, (40, 60, 3), dtype=np.uint16)
CLEAR = np.random.default_rng(2).integers(0, 2**16, (40, 60, 4), dtype=np.uint16)


def copied(path: Path, pages: int = 1, keep_exif: bool = False) -> Path:
    """A copy in which nothing is painted."""
    copy = path.with_name(f"copy-{path.name}")
    with PictureSink(copy, copy_format(kind_of_file(path).format)) as sink:
        for page in read_pages_as_stored(path, pages, keep_exif):
            sink.write(page)
    return copy


def same_pages(first: Path, second: Path, count: int) -> bool:
    pairs = zip(read_pages_as_stored(first, count), read_pages_as_stored(second, count))
    return all(
        (a.mode, a.pixels.dtype) == (b.mode, b.pixels.dtype) and np.array_equal(a.pixels, b.pixels)
        for a, b in pairs
    )


def pillow(mode: str, kind: str, **options: Any) -> Callable[[Path], None]:
    image = Image.fromarray(RGB)
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    return lambda path: image.save(path, kind, **options)


def opencv(ending: str, pixels: NDArray[np.uint16]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(cv2.imencode(ending, pixels)[1].tobytes())


@pytest.mark.parametrize(
    ("write", "format_"),
    [
        (pillow("RGB", "PNG", icc_profile=PROFILE), "PNG"),
        (pillow("RGBA", "PNG"), "PNG"),
        (pillow("LA", "PNG"), "PNG"),
        (pillow("P", "PNG"), "PNG"),
        (pillow("P", "PNG", transparency=3), "PNG"),
        (pillow("RGB", "WEBP", lossless=True, icc_profile=PROFILE), "WEBP"),
        (pillow("RGBA", "WEBP", lossless=True, exact=True), "WEBP"),
        (pillow("RGB", "BMP"), "BMP"),
        (pillow("RGB", "TIFF", compression="tiff_lzw", icc_profile=PROFILE), "TIFF"),
        (pillow("RGB", "TIFF", compression="jpeg"), "TIFF"),
        (pillow("1", "TIFF", compression="group4"), "TIFF"),
        (pillow("CMYK", "TIFF"), "TIFF"),
        (pillow("P", "GIF"), "PNG"),
        (pillow("RGB", "PPM"), "PNG"),
        (opencv(".png", DEEP), "PNG"),
        (opencv(".png", CLEAR), "PNG"),
        (opencv(".png", DEEP[..., 0]), "PNG"),
        (opencv(".tif", DEEP), "TIFF"),
        (opencv(".tif", CLEAR), "TIFF"),
        (opencv(".tif", DEEP[..., 0]), "TIFF"),
    ],
)
def test_formats_without_loss_are_equal_to_the_last_bit(
    write: Callable[[Path], None], format_: str, tmp_path: Path
) -> None:
    path = tmp_path / "picture"
    write(path)
    copy = copied(path)
    with Image.open(path) as before, Image.open(copy) as after:
        assert after.format == format_
        assert after.info.get("icc_profile") == before.info.get("icc_profile")
    assert same_pages(path, copy, 1)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_16_bits_in_color_keep_their_profile(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    with PictureSink(path, "PNG" if kind == "png" else "TIFF") as sink:
        sink.write(Page(DEEP, "RGB", {"icc_profile": PROFILE}))
    with Image.open(copied(path)) as image:
        assert image.info["icc_profile"] == PROFILE
    assert same_pages(path, copied(path), 1)


def test_16_bits_in_color_keep_their_exif_on_request(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    path = tmp_path / "a.png"
    with PictureSink(path, "PNG") as sink:
        sink.write(Page(DEEP, "RGB", {"exif": exif.tobytes()}))
    for keep in (True, False):
        with Image.open(copied(path, keep_exif=keep)) as image:
            assert image.getexif().get(0x010F) == ("Maker" if keep else None)
    assert same_pages(path, copied(path, keep_exif=True), 1)


def test_a_painted_page_has_no_profile_of_other_channels(tmp_path: Path) -> None:
    for mode, kept in (("L", False), ("CMYK", False), ("RGB", True)):
        pillow(mode, "TIFF", icc_profile=PROFILE)(tmp_path / mode)
        (page,) = read_pages_as_stored(tmp_path / mode, 1)
        painted = page.painted(RGB)
        assert ("icc_profile" in painted.options) == kept
        np.testing.assert_array_equal(painted.pixels, RGB[..., ::-1])


def test_a_lab_picture_is_copied_in_rgb_without_its_profile(tmp_path: Path) -> None:
    smooth = Image.fromarray(cv2.resize(RGB[:6, :8], (160, 120), interpolation=cv2.INTER_CUBIC))
    change = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    path = tmp_path / "a.tif"
    ImageCms.applyTransform(smooth, change).save(path, icc_profile=PROFILE)
    with Image.open(path) as before, Image.open(copied(path)) as after:
        assert (before.mode, after.mode) == ("LAB", "RGB")
        assert "icc_profile" in before.info
        assert "icc_profile" not in after.info
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_is_coded_with_its_own_tables(mode: str, tmp_path: Path) -> None:
    smooth = cv2.resize(RGB[:6, :8], (160, 120), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / "a.jpg"
    options = {"quality": 71, "subsampling": 0, "icc_profile": PROFILE}
    Image.fromarray(smooth).convert(mode).save(path, **options)
    copy = copied(path)
    with Image.open(path) as before, Image.open(copy) as after:
        assert (after.mode, after.quantization) == (before.mode, before.quantization)
        assert after.info["icc_profile"] == PROFILE
        difference = np.abs(np.asarray(after).astype(int) - np.asarray(before))
    assert difference.mean() < 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("TIFF", {}),
        ("GIF", {"duration": [100, 300]}),
        ("PNG", {"duration": [100, 300]}),
        ("WEBP", {"duration": [100, 300], "lossless": True}),
    ],
)
def test_pages_and_frames_are_kept(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a"
    other = Image.fromarray(RGB[::-1].copy())
    Image.fromarray(RGB).save(path, kind, save_all=True, append_images=[other], **options)
    copy = copied(path, 2)
    assert same_pages(path, copy, 2)
    with Image.open(copy) as image:
        assert image.n_frames == 2
        assert image.format == ("PNG" if kind == "GIF" else kind)
        if options:
            for frame, duration in enumerate(options["duration"]):
                image.seek(frame)
                image.load()
                assert image.info["duration"] == duration


def test_pages_of_different_makes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pages = [
        Page(DEEP, "RGB", {}),
        Page(RGB[:20, :, 0], "L", {"compression": "tiff_lzw"}),
        Page(CLEAR[:10], "RGBA", {}),
    ]
    with PictureSink(path, "TIFF") as sink:
        for page in pages:
            sink.write(page)
    assert same_pages(path, copied(path, 3), 3)
    for page, read in zip(pages, read_pages_as_stored(path, 3)):
        assert np.array_equal(page.pixels, read.pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_is_dropped_unless_asked_for(kind: str, tmp_path: Path) -> None:
    """What shows the picture once more is dropped in any case."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    place = {1: "N"}
    camera = {0x9003: "2020:01:01 00:00:00", 0x927C: b"the maker's notes"}
    for ifd, values in ((0x8825, place), (0x8769, camera)):
        exif.get_ifd(ifd).update(values)
        exif[ifd] = values
    path = tmp_path / "a"
    Image.fromarray(RGB).save(path, kind, exif=exif)
    for keep in (False, True):
        with Image.open(copied(path, keep_exif=keep)) as image:
            found = image.getexif()
            assert image.size == (40, 60)  # upright
            assert found.get(0x0112, 1) == 1
            assert found.get(0x010F) == ("Maker" if keep else None)
            assert found.get_ifd(0x8825) == ({1: "N"} if keep else {})
            assert found.get_ifd(0x8769) == ({0x9003: "2020:01:01 00:00:00"} if keep else {})
        assert b"the maker's notes" not in copied(path, keep_exif=keep).read_bytes()


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    def interrupted(format_: str) -> None:
        with PictureSink(tmp_path / "a", format_) as sink:
            sink.write(Page(RGB, "RGB", {}))
            raise RuntimeError

    def written(page: Page, format_: str) -> None:
        with PictureSink(tmp_path / "a", format_) as sink:
            sink.write(page)

    for format_ in ("TIFF", "PNG"):
        with pytest.raises(RuntimeError):
            interrupted(format_)
    with pytest.raises(OSError, match="cannot write 40 x 60 pixels as JPEG"):
        written(Page(RGB[..., :2].copy(), "LA", {}), "JPEG")
    with pytest.raises(OSError, match="cannot write 1 x 1000001 pixels as PNG"):
        written(Page(np.zeros((1, 1_000_001, 3), np.uint16), "RGB", {}), "PNG")  # libpng's limit
    assert os.listdir(tmp_path) == []
