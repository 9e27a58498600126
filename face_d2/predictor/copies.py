"""Copies of pictures that differ from the originals only in the faces.

A copy keeps the format, color profile, bits per channel, transparency, pages and frames of the
picture. Outside the faces, copies in lossless formats are identical to the original; a JPEG is
encoded with the tables of the original. Formats that cannot be written (GIF, AVIF, HEIC, JPEG 2000,
PPM) become PNG. EXIF data are kept only on request, and never the thumbnail and the maker's notes,
which can contain the original picture.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, TiffImagePlugin

from face_d2.data.image_file import (
    deep_pixels,
    is_deep_color,
    opened_image,
    orientation_of,
    turned_upright,
    with_image,
)
from face_d2.utils.files import replaced_file

__all__ = ["Page", "PictureSink", "copy_format", "read_page", "read_pages_as_stored"]

#: Formats that can be written; others become PNG.
_WRITTEN = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_LOSSLESS_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate")
_MODES = ("L", "LA", "RGB", "RGBA", "CMYK")
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_ORIENTATION, _MAKER_NOTE = 0x0112, 0x927C
#: Tags about the storage of a TIFF's pixels, which the copy does not take over.
_TIFF_STORAGE = {*range(254, 260), 262, 266, 273, *range(277, 280), 282, 283, 284, 296, 317, 320}
_TIFF_STORAGE |= {*range(322, 326), 330, 338, 339, 347, 530, 532, 700, 33723, 34377, 34675}


@dataclass(frozen=True)
class Page:
    """One page or frame as stored in its file, but upright.

    Attributes:
        pixels: (H, W) or (H, W, C), uint8 or uint16, channels in the order of ``mode``.
        mode: "L", "LA", "RGB", "RGBA" or "CMYK".
        options: arguments of Pillow's writer: profile, EXIF, duration of a frame, tables.
    """

    pixels: NDArray[Any]
    mode: str
    options: dict[str, Any]

    @property
    def colors(self) -> int:
        """Number of color channels; a further channel is transparency."""
        return {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3, "CMYK": 4}[self.mode]

    def painted(self, bgr: NDArray[np.uint8]) -> Page:
        """The page with other pixels (8 bits, opaque)."""
        options = {k: v for k, v in self.options.items() if k not in ("quality", "qtables")}
        if self.mode not in ("RGB", "RGBA"):  # the profile is for gray or CMYK
            options.pop("icc_profile", None)
        return Page(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), "RGB", options)


def copy_format(format_: str) -> str:
    """The format in which a copy of a picture is written."""
    return format_ if format_ in _WRITTEN else "PNG"


def read_page(path: str | Path, keep_exif: bool = False) -> Page:
    """The first page of a picture.

    Raises:
        UnreadableImageError, OSError: see :func:`face_d2.data.image_file.read_image`.
    """
    data = Path(path).read_bytes
    return with_image(path, lambda image: _page(image, data, 0, keep_exif))


def read_pages_as_stored(path: str | Path, count: int, keep_exif: bool = False) -> Iterator[Page]:
    """The first ``count`` pages or frames of a picture, one at a time.

    Raises:
        UnreadableImageError, OSError: see :func:`face_d2.data.image_file.read_image`.
    """
    with opened_image(path) as image:
        for number in range(count):
            image.seek(number)
            yield _page(image, Path(path).read_bytes, number, keep_exif)


class PictureSink:
    """Writes a picture file atomically; a context manager.

    After an error in the block, there is no file. The pages of a TIFF are written immediately; the
    frames of an animation are kept in memory until the end. ``format_`` is one of "JPEG", "PNG",
    "WEBP", "BMP" and "TIFF".
    """

    def __init__(self, path: Path, format_: str) -> None:
        self._path, self._format = path, format_
        self._frames: list[Page] = []
        self._stack = contextlib.ExitStack()

    def write(self, page: Page) -> None:
        """Adds a page or frame.

        Raises:
            OSError: the page cannot be written.
        """
        if self._format != "TIFF":
            self._frames.append(page)
            return
        with self._writing(page):
            if page.pixels.dtype == np.uint16 and page.pixels.ndim == 3:
                self._tiff.write(_deep_tiff(page))
            else:
                _pillow(page).save(self._tiff, "TIFF", **page.options)
            self._tiff.newFrame()

    def __enter__(self) -> PictureSink:
        self._temporary = self._stack.enter_context(replaced_file(self._path))
        if self._format == "TIFF":
            file = self._stack.enter_context(self._temporary.open("w+b"))
            self._tiff = self._stack.enter_context(TiffImagePlugin.AppendingTiffWriter(file))
        self._stack.push(self._finish)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _finish(self, *error: Any) -> None:
        """Writes the frames, unless there was an error; the first part of leaving the context."""
        if error[0] is None and self._frames:
            with self._writing(self._frames[0]):
                self._write_frames()

    def _write_frames(self) -> None:
        first, *others = self._frames
        if first.pixels.dtype == np.uint16 and first.pixels.ndim == 3:
            self._temporary.write_bytes(_deep_png(first))
            return
        options = dict(first.options)
        if others:
            options["duration"] = [frame.options.get("duration", 0) for frame in self._frames]
            options |= {"save_all": True, "append_images": [_pillow(frame) for frame in others]}
            if self._format == "PNG":
                options |= {"blend": 0, "disposal": 0}
        else:
            options.pop("duration", None)
        _pillow(first).save(self._temporary, self._format, **options)

    @contextlib.contextmanager
    def _writing(self, page: Page) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, struct.error, cv2.error) as error:
            height, width = page.pixels.shape[:2]
            raise OSError(
                f"{self._path}: cannot write {height} x {width} pixels as {self._format} ({error})"
            ) from error


def _page(image: Image.Image, data: Callable[[], bytes], number: int, keep_exif: bool) -> Page:
    # Pillow and OpenCV apply the orientation of a TIFF themselves.
    orientation = 1 if image.format == "TIFF" else orientation_of(image)
    deep = is_deep_color(image)
    image.load()
    options = _options(image, data, keep_exif)
    if deep:
        swap = cv2.COLOR_BGRA2RGBA if image.mode in ("RGBA", "LA") else cv2.COLOR_BGR2RGB
        pixels = cv2.cvtColor(deep_pixels(data(), number), swap)
        mode = "RGB" if pixels.shape[2] == 3 else "RGBA"
    elif image.mode.startswith("I"):
        pixels, mode = np.asarray(image).astype(np.uint16), "L"
    else:
        mode = _mode(image)
        if mode == "RGB" and image.mode in ("LAB", "YCbCr", "HSV"):
            options.pop("icc_profile", None)
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return Page(turned_upright(pixels, orientation), mode, options)


def _mode(image: Image.Image) -> str:
    """The one of ``_MODES`` that loses nothing of an image."""
    if "transparency" in image.info and image.mode in ("P", "L", "RGB"):
        return "LA" if image.mode == "L" else "RGBA"
    mode = {"1": "L", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode)
    return mode if mode in _MODES else "RGB"


def _options(image: Image.Image, data: Callable[[], bytes], keep_exif: bool) -> dict[str, Any]:
    info = image.info
    options: dict[str, Any] = {k: info[k] for k in ("icc_profile", "dpi") if info.get(k)}
    if image.format in ("JPEG", "MPO"):
        # Those of the original, because encoding it again with the same tables hardly changes it.
        options["qtables"] = image.quantization
        # -1: gray, or a layout that Pillow cannot write.
        options["subsampling"] = max(JpegImagePlugin.get_sampling(image), 0)
        options["progressive"] = bool(info.get("progressive"))
    elif image.format == "WEBP":
        lossless = _is_lossless_webp(data())
        options |= {"lossless": True, "exact": True} if lossless else {"quality": 95}
        options["background"] = info.get("background", (0, 0, 0, 0))
    elif image.format == "TIFF":
        used = info.get("compression", "raw")
        options["compression"] = used if used in _LOSSLESS_TIFF else "tiff_adobe_deflate"
    for name in ("duration", "loop"):
        if name in info and getattr(image, "is_animated", False):
            options[name] = info[name]
    if keep_exif:
        exif = _exif(image)
        if len(exif):
            options["exif"] = exif.tobytes() if image.format != "TIFF" else exif
    return options


def _exif(image: Image.Image) -> Image.Exif:
    """The EXIF data without orientation and thumbnail; the pixels are stored upright."""
    found, kept = image.getexif(), Image.Exif()
    for tag, value in found.items():
        if tag not in (_ORIENTATION, *_TIFF_STORAGE, _EXIF_IFD, _GPS_IFD):
            kept[tag] = value
    for ifd in (_EXIF_IFD, _GPS_IFD):
        values = {tag: v for tag, v in found.get_ifd(ifd).items() if tag != _MAKER_NOTE}
        if values:
            kept.get_ifd(ifd).update(values)
            kept[ifd] = values
    return kept


def _is_lossless_webp(data: bytes) -> bool:
    """Whether all frames of a WebP are lossless."""
    at, names = 12, []
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        names.append(name)
        # The chunks of a frame follow its own 16 bytes.
        at += 8 + 16 if name == b"ANMF" else 8 + length + length % 2
    return b"VP8L" in names and b"VP8 " not in names


def _pillow(page: Page) -> Image.Image:
    pixels = np.ascontiguousarray(page.pixels)
    if pixels.dtype == np.uint16:
        return Image.frombytes("I;16", pixels.shape[1::-1], pixels.astype("<u2").tobytes())
    return Image.frombytes(page.mode, pixels.shape[1::-1], pixels.tobytes())


def _deep_png(page: Page) -> bytes:
    """A color PNG with 16 bits per channel, which Pillow cannot write."""
    swap = cv2.COLOR_RGBA2BGRA if page.mode == "RGBA" else cv2.COLOR_RGB2BGR
    written, data = cv2.imencode(".png", cv2.cvtColor(page.pixels, swap))
    if not written:
        raise OSError("OpenCV cannot write it")
    chunks = b""
    if "icc_profile" in page.options:
        chunks += _chunk(b"iCCP", b"ICC\0\0" + zlib.compress(page.options["icc_profile"]))
    if "exif" in page.options:
        chunks += _chunk(b"eXIf", page.options["exif"].removeprefix(b"Exif\0\0"))
    png, behind_header = data.tobytes(), 8 + 25
    return png[:behind_header] + chunks + png[behind_header:]


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _deep_tiff(page: Page) -> bytes:
    """A deflated color TIFF page with 16 bits per channel, which Pillow cannot write."""
    height, width, channels = page.pixels.shape
    strip = zlib.compress(page.pixels.astype("<u2").tobytes())
    tags = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
    tags[256], tags[257] = width, height
    tags[258] = (16,) * channels
    tags[259], tags[262] = 8, 2  # deflate, RGB
    tags[277], tags[278], tags[279] = channels, height, len(strip)
    tags[284] = 1
    tags[339] = (1,) * channels
    if channels == 4:
        tags[338] = 2
    if "icc_profile" in page.options:
        tags.tagtype[34675] = 7
        tags[34675] = page.options["icc_profile"]
    tags[273] = 0  # relative to the end of the tags, which Pillow adds
    file = io.BytesIO()
    tags.save(file)
    return file.getvalue() + strip
