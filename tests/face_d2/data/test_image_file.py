"""Images nobody checked: read whole or refused, by the reader and by both mappers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.structures import BoxMode
from helpers import image_files
from helpers.image_files import HEIGHT, READABLE, UNREADABLE, WIDTH
from PIL import Image, ImageFile, ImageOps, features

from face_d2.config import get_cfg
from face_d2.data import mapper as mapper_module
from face_d2.data.augmentation import BoundedResize
from face_d2.data.image_file import (
    UnreadableImageError,
    image_size,
    page_count,
    read_image,
    read_pages,
    read_shrunk,
)
from face_d2.data.mapper import FaceDatasetMapper
from face_d2.data.repaired_file import repaired_bytes
from lffd_d2.scale_sampling import ScaleSamplingMapper

MAPPERS = {"face_crop": FaceDatasetMapper, "scale_sampling": ScaleSamplingMapper}
CROP = 96


def train_mapper(kind: str) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    cfg = get_cfg()
    cfg.INPUT.FACE_CROP.SIZE = CROP
    cfg.INPUT.SCALE_SAMPLING.SIZE = CROP
    return MAPPERS[kind](cfg, True)


def evaluation_mapper(*settings: object) -> FaceDatasetMapper:
    cfg = get_cfg()
    cfg.merge_from_list(list(settings))
    return FaceDatasetMapper(cfg, False)


def record(folder: Path, content: bytes, size: tuple[int, int]) -> dict[str, Any]:
    """A dataset dict of one face; every file is called .jpg."""
    path = folder / "x.jpg"
    path.write_bytes(content)
    height, width = size
    face = [width / 4, height / 4, max(width / 3, 0.5), max(height / 3, 0.5)]
    annotation = {"bbox": face, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0}
    return {
        "file_name": str(path),
        "height": height,
        "width": width,
        "image_id": "x",
        "annotations": [annotation],
    }


@pytest.mark.parametrize("name", READABLE)
def test_readable_files_have_the_size_they_are_shown_in(name: str, tmp_path: Path) -> None:
    content, size = READABLE[name]
    path = tmp_path / "x.jpg"
    path.write_bytes(content())
    pixels = read_image(path)
    assert image_size(path) == pixels.shape[:2] == size
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    pixels[:] = 0  # not somebody else's memory
    for scale in (2.0, 0.5, 0.1):
        shrunk, shrink = read_shrunk(path, scale)
        assert shrunk.shape[:2] == tuple(-(-side // shrink) for side in size)


@pytest.mark.parametrize("name", [n for n in READABLE if READABLE[n][1] == (HEIGHT, WIDTH)])
def test_what_is_read_is_the_picture(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(READABLE[name][0]())
    expected = image_files.picture()
    if "gray" in name:
        expected = expected.convert("L").convert("RGB")
    error = np.abs(read_image(path, "RGB").astype(int) - np.asarray(expected))
    # The web palette has 6 steps a channel; a bilevel picture is right on average alone.
    limit = {"palette": 30, "animated-gif": 30, "bilevel": 128}.get(name, 5)
    assert error.mean() < limit
    assert np.array_equal(read_image(path, "RGB"), read_image(path, "BGR")[..., ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations(orientation: int, tmp_path: Path) -> None:
    data = image_files.rotated(orientation)
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(read_image(path, "RGB"), expected)
    assert image_size(path) == expected.shape[:2]


@pytest.mark.parametrize("unused", [0, 2, 4, 6])
def test_16_bits_keep_the_upper_8_of_those_that_are_used(unused: int, tmp_path: Path) -> None:
    """A camera's 10, 12 or 14 bits are as bright as 16."""
    for gray in (True, False):
        path = tmp_path / "x.png"
        path.write_bytes(image_files.sixteen_bit(gray, unused))
        picture = image_files.picture()
        expected = picture.convert("L").convert("RGB") if gray else picture
        assert np.array_equal(read_image(path, "RGB"), np.asarray(expected))


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(UNREADABLE[name]())
    for read in (read_image, lambda p: read_shrunk(p, 1.0), lambda p: read_shrunk(p, 0.2)):
        with pytest.raises(UnreadableImageError, match=r"x\.jpg cannot be decoded \(.+\)"):
            read(path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("camera-raw", "raw file of a camera, which is not read; convert it"),
        ("float-tiff", "scale its values to 0-255"),
        ("jpeg-xl", "is JPEG XL, which is not read; convert it to JPEG or PNG"),
        ("text", "not an image, or an unsupported format"),
    ],
)
def test_what_is_not_read_says_what_to_do(name: str, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        read_image(UNREADABLE[name]())


def test_heic_without_the_plugin_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    heic = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(100)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnreadableImageError, match=r"is HEIC; install pillow-heif .*\[heif\]"):
        read_image(heic)


def test_avif_without_a_reader_says_what_to_update(monkeypatch: pytest.MonkeyPatch) -> None:
    avif = b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf" + bytes(100)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnreadableImageError, match=r"is AVIF, .* update Pillow to 11\.3 or conv"):
        read_image(avif)


@pytest.mark.parametrize("head", [b"II*\0\x10\0\0\0CR\2\0", b"\0\0\0\x18ftypcrx \0\0\0\1crx "])
def test_raw_files_of_cameras_are_told_by_their_first_bytes(head: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"raw file, which is not read; develop it"):
        read_image(head + bytes(100))


def test_a_profile_is_kept_unless_it_is_too_large() -> None:
    """Next to a text that has to go."""
    profile = bytes(range(256))
    text = image_files.with_text(3_000_000)
    for chunk in (zlib.compress(profile), b"damaged"):
        content = b"iCCPx\0\0" + chunk
        size, checksum = struct.pack(">I", len(content) - 4), struct.pack(">I", zlib.crc32(content))
        data = text[:33] + size + content + checksum + text[33:]
        repaired = repaired_bytes(data)
        assert repaired is not None
        assert content in repaired
        assert len(repaired) < len(data)


def test_a_full_memory_is_no_damaged_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(MemoryError):
        read_image(image_files.encoded(image_files.picture(), "JPEG"))


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_pictures_of_phones_and_the_web_are_read(kind: str) -> None:
    if kind == "HEIF":
        plugin = pytest.importorskip("pillow_heif", reason="the extra [heif] is not installed")
        plugin.register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    data = image_files.encoded(image_files.picture(), kind, quality=95)
    difference = np.abs(read_image(data, "RGB").astype(int) - np.asarray(image_files.picture()))
    assert difference.mean() < 4
    with pytest.raises(UnreadableImageError):
        read_image(data[: len(data) * 9 // 10])


def test_a_missing_end_marker_is_told_from_missing_pixels() -> None:
    """Of every picture one byte more than the marker is already damage."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8))
    for image in (noise, image_files.picture(), Image.new("RGB", (64, 64), "gray")):
        for options in ({}, {"subsampling": 0}):
            data = image_files.encoded(image, "JPEG", quality=90, **options)
            for cut in (1, 2):
                assert np.array_equal(read_image(data[:-cut]), read_image(data))
            for cut in (3, 4, 5, 9, 50):
                with pytest.raises(UnreadableImageError, match="truncated"):
                    read_image(data[:-cut])
        for options in ({"progressive": True}, {"restart_marker_rows": 1}):
            data = image_files.encoded(image, "JPEG", quality=90, **options)
            with pytest.raises(UnreadableImageError, match="truncated"):  # cannot be told
                read_image(data[:-2])


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_every_page_or_frame_is_read(kind: str, tmp_path: Path) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    pages = [image_files.picture(), Image.new("RGB", (WIDTH, HEIGHT), "red"), image_files.picture()]
    path = tmp_path / "x"
    pages[0].save(path, kind, save_all=True, append_images=pages[1:], **options)
    assert page_count(path) == 3
    read = list(read_pages(path))
    for page, corner in zip(read, ([0, 0, 0], [0, 0, 255], [0, 0, 0])):
        assert np.abs(page[0, 0].astype(int) - corner).max() < 30  # a GIF has few colors
    assert np.array_equal(read[0], read_image(path))


def test_the_other_eyes_picture_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "x.mpo"
    image_files.picture().save(path, "MPO", save_all=True, append_images=[image_files.picture()])
    assert Image.open(path).n_frames == 2
    assert page_count(path) == 1


def test_a_missing_file_is_no_damaged_one(tmp_path: Path) -> None:
    for read in (read_image, image_size):
        with pytest.raises(FileNotFoundError, match=r"x\.jpg"):
            read(tmp_path / "x.jpg")


@pytest.mark.parametrize("name", ["jpeg-bomb", "png-bomb"])
def test_bombs_are_refused_by_their_header(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(UNREADABLE[name]())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    for read in (image_size, read_image, lambda p: read_shrunk(p, 0.1)):
        with pytest.raises(UnreadableImageError, match="400000000 pixels"):
            read(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_scattered_damage_is_read_in_full_size_or_refused(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = image_files.encoded(image_files.picture(), kind)
    path = tmp_path / "x.jpg"
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(len(data), size=rng.integers(1, 6)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_image(path).shape[:2] == image_size(path)
        except UnreadableImageError:
            refused += 1
    assert 0 < refused < 150


@pytest.mark.parametrize("kind", MAPPERS)
@pytest.mark.parametrize("name", READABLE)
def test_training_takes_what_can_be_read(kind: str, name: str, tmp_path: Path) -> None:
    np.random.seed(0)
    content, size = READABLE[name]
    item = train_mapper(kind)(record(tmp_path, content(), size))
    assert item is not None
    assert item["image"].shape == (3, CROP, CROP)
    assert item["instances"].gt_boxes.tensor.isfinite().all()


@pytest.mark.parametrize("kind", MAPPERS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_training_leaves_the_others_out(
    kind: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.random.seed(0)
    mapper = train_mapper(kind)
    for size in ((480, 800), (0, 0)):  # registering reads 0 x 0 from a damaged header
        assert mapper(record(tmp_path, UNREADABLE[name](), size)) is None
    assert caplog.text.count("x.jpg cannot be decoded") == 1


@pytest.mark.parametrize("name", READABLE)
def test_evaluation_takes_what_can_be_read(name: str, tmp_path: Path) -> None:
    content, size = READABLE[name]
    item = evaluation_mapper("INPUT.MIN_SIZE_TEST", 100, "INPUT.MAX_SIZE_TEST", 0)(
        record(tmp_path, content(), size)
    )
    assert mapper_module.UNREADABLE not in item
    expected = size if max(size) == 20000 else tuple(round(s * 100 / min(size)) for s in size)
    assert tuple(item["image"].shape[1:]) == pytest.approx(expected, abs=1)
    assert (item["height"], item["width"]) == size


@pytest.mark.parametrize("name", UNREADABLE)
def test_evaluation_goes_on_with_the_others(name: str, tmp_path: Path) -> None:
    item = evaluation_mapper()(record(tmp_path, UNREADABLE[name](), (0, 0)))
    assert "x.jpg cannot be decoded" in item[mapper_module.UNREADABLE]
    assert item["image_id"] == "x"
    assert item["image"].shape[1:] == (item["height"], item["width"])


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((60, 90), 120, 10**9, (120, 180)),
        ((60, 90), 120, 150, (100, 150)),
        ((10, 160), 20, 10**9, (20, 320)),  # 1:16 is still a photograph
        ((10, 161), 20, 10**9, (10, 161)),
        ((1, 20000), 800, 10**9, (1, 20000)),
        ((1, 20000), 800, 1333, (1, 1333)),
        ((20000, 1), 800, 1333, (1333, 1)),
        ((100, 4000), 50, 10**9, (50, 2000)),
    ],
)
def test_resizes_are_bounded(
    size: tuple[int, int], short: int, longest: int, expected: tuple[int, int]
) -> None:
    image = np.zeros((*size, 3), dtype=np.uint8)
    resized = BoundedResize(short, longest).get_transform(image).apply_image(image)
    assert resized.shape[:2] == expected


def test_a_size_of_0_is_no_resize() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    transform = BoundedResize(0, 1000).get_transform(image)
    np.testing.assert_array_equal(transform.apply_image(image), image)


def test_an_unknown_channel_order_is_named() -> None:
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT is 'L'"):
        evaluation_mapper("INPUT.FORMAT", "L")
