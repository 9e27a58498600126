"""Image files of every kind that turns up in scraped data sets, written from one small picture."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

HEIGHT, WIDTH = 48, 80


def picture(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """A smooth RGB picture without any symmetry."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return Image.fromarray((np.stack([x, y, x * y], axis=2) * 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    others = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("black", "white")]
    return encoded(picture(), kind, save_all=True, append_images=others)


def rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), "JPEG", exif=exif, quality=95)


def sixteen_bit(gray: bool, unused: int = 0) -> bytes:
    pixels = np.asarray(picture().convert("L") if gray else picture())
    wide = (pixels.astype(np.uint16) << 8 | 0x7F) >> unused
    return cv2.imencode(".png", wide if gray else wide[..., ::-1])[1].tobytes()


def damaged_checksum() -> bytes:
    """A dark PNG of 16 bits with a wrong checksum, at which Pillow does not look."""
    dark = np.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3) % 900
    data = bytearray(cv2.imencode(".png", dark.astype(np.uint16))[1].tobytes())
    start = data.index(b"IDAT")
    data[start + 4 + struct.unpack(">I", data[start - 4 : start])[0]] ^= 255
    return bytes(data)


def with_text(length: int) -> bytes:
    """A PNG with packed texts before and behind its pixels, as image generators write them."""
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * length, zip=True)
    text.add_itxt("parameters", "y" * length, zip=True)
    data = encoded(picture(), "PNG", pnginfo=text)
    packed = b"prompt\0\0" + zlib.compress(b"z" * length)
    chunk = b"zTXt" + packed
    last = struct.pack(">I", len(packed)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:-12] + last + data[-12:]


def jpeg_bomb() -> bytes:
    """A JPEG whose header claims 20000 x 20000 pixels."""
    data = bytearray(encoded(picture(), "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 20000, 20000)
    return bytes(data)


def png_bomb() -> bytes:
    """A PNG whose header claims 20000 x 20000 pixels."""
    data = bytearray(encoded(picture(), "PNG"))
    data[16:24] = struct.pack(">II", 20000, 20000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


#: Name -> (content, (height, width) as shown).
READABLE: dict[str, tuple[Callable[[], bytes], tuple[int, int]]] = {
    "jpeg": (lambda: encoded(picture(), "JPEG", quality=95), (HEIGHT, WIDTH)),
    "progressive": (lambda: encoded(picture(), "JPEG", progressive=True), (HEIGHT, WIDTH)),
    "more-behind": (lambda: encoded(picture(), "JPEG") + b"\0" * 500, (HEIGHT, WIDTH)),
    "png": (lambda: encoded(picture(), "PNG"), (HEIGHT, WIDTH)),
    "webp": (lambda: encoded(picture(), "WEBP", lossless=True), (HEIGHT, WIDTH)),
    "bmp": (lambda: encoded(picture(), "BMP"), (HEIGHT, WIDTH)),
    "tiff": (lambda: encoded(picture(), "TIFF", compression="tiff_lzw"), (HEIGHT, WIDTH)),
    "ppm": (lambda: encoded(picture(), "PPM"), (HEIGHT, WIDTH)),
    "animated-tiff": (lambda: animated("TIFF"), (HEIGHT, WIDTH)),
    "12-bit-in-16-gray": (lambda: sixteen_bit(gray=True, unused=4), (HEIGHT, WIDTH)),
    "12-bit-in-16-rgb": (lambda: sixteen_bit(gray=False, unused=4), (HEIGHT, WIDTH)),
    "large-text": (lambda: with_text(3_000_000), (HEIGHT, WIDTH)),
    "no-end-marker": (lambda: encoded(picture(), "JPEG", quality=95)[:-2], (HEIGHT, WIDTH)),
    "rgba": (lambda: encoded(picture().convert("RGBA"), "PNG"), (HEIGHT, WIDTH)),
    "gray": (lambda: encoded(picture().convert("L"), "JPEG", quality=95), (HEIGHT, WIDTH)),
    "palette": (lambda: encoded(picture().convert("P"), "PNG", transparency=0), (HEIGHT, WIDTH)),
    "bilevel": (lambda: encoded(picture().convert("1"), "PNG"), (HEIGHT, WIDTH)),
    "cmyk": (lambda: encoded(picture().convert("CMYK"), "JPEG", quality=95), (HEIGHT, WIDTH)),
    "16-bit-gray": (lambda: sixteen_bit(gray=True), (HEIGHT, WIDTH)),
    "16-bit-rgb": (lambda: sixteen_bit(gray=False), (HEIGHT, WIDTH)),
    "animated-gif": (lambda: animated("GIF"), (HEIGHT, WIDTH)),
    "animated-png": (lambda: animated("PNG"), (HEIGHT, WIDTH)),
    "exif-rotated": (lambda: rotated(6), (WIDTH, HEIGHT)),
    "exif-damaged": (
        lambda: encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        (HEIGHT, WIDTH),
    ),
    "no-exif": (
        lambda: encoded(picture(), "WEBP", lossless=True, exif=b"Exif\0\0anything else"),
        (HEIGHT, WIDTH),
    ),
    "large-profile": (
        lambda: encoded(picture(), "PNG", icc_profile=bytes(3_000_000)),
        (HEIGHT, WIDTH),
    ),
    "1x1": (lambda: encoded(picture(1, 1), "JPEG"), (1, 1)),
    "1x20000": (lambda: encoded(picture(1, 20000), "JPEG"), (1, 20000)),
    "20000x1": (lambda: encoded(picture(20000, 1), "PNG"), (20000, 1)),
}

#: Name -> content.
UNREADABLE: dict[str, Callable[[], bytes]] = {
    "truncated-jpeg": lambda: cut(encoded(picture(480, 800), "JPEG"), 0.6),
    "truncated-progressive": lambda: cut(
        encoded(picture(480, 800), "JPEG", progressive=True, quality=95), 0.6
    ),
    "truncated-png": lambda: cut(encoded(picture(), "PNG"), 0.6),
    "truncated-webp": lambda: cut(encoded(picture(), "WEBP", quality=95), 0.6),
    "truncated-gif": lambda: cut(encoded(picture(), "GIF"), 0.6),
    "header-alone": lambda: encoded(picture(), "JPEG")[:200],
    "corrupt-jpeg": lambda: encoded(picture(), "JPEG").replace(b"\xff\xc4", b"\xff\xc5"),
    "corrupt-png": lambda: encoded(picture(), "PNG").replace(b"IDAT", b"IDOT"),
    "truncated-large-text": lambda: cut(with_text(3_000_000), 0.5),
    "scan-without-header": lambda: encoded(picture(), "JPEG").partition(b"\xff\xda")[0]
    + b"\xff\xda\0\x0c",
    "damaged-checksum": damaged_checksum,
    "zero-bytes": lambda: b"",
    "text": lambda: b"404 Not Found\n",
    "html": lambda: b"<html><body>404 Not Found</body></html>",
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
    "camera-raw": lambda: encoded(picture(), "TIFF", tiffinfo={50706: b"\1\4\0\0"}),
    "float-tiff": lambda: encoded(Image.new("F", (WIDTH, HEIGHT), 0.5), "TIFF"),
    "jpeg-xl": lambda: b"\xff\x0a" + bytes(100),
    "jpeg-bomb": jpeg_bomb,
    "png-bomb": png_bomb,
}
