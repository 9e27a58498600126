"""The size of an image out of the first bytes of its file, so that no oversized one is decoded.

Formats: JPEG (ITU T.81, B.2.2), PNG, GIF, BMP, WebP (RFC 9649) and TIFF 6.0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

__all__ = ["header_size"]

# Start-of-frame markers; C4, C8 and CC in between mean other things.
_SOF = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # markers that no length follows
_TIFF_TYPES = {3: "H", 4: "I"}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257


def header_size(data: bytes) -> tuple[int, int]:
    """(height, width) as stored, before any rotation that the file asks for.

    Args:
        data: the file's bytes.

    Raises:
        ValueError: when the bytes are of none of the formats, or end within the header.
    """
    reader = _reader(data)
    try:
        return reader(data)
    except (struct.error, IndexError) as error:
        raise ValueError("the file ends or is damaged within its header") from error


def _reader(data: bytes) -> Callable[[bytes], tuple[int, int]]:
    if data[:2] == b"\xff\xd8":
        return _jpeg
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return lambda d: struct.unpack(">II", d[16:24])[::-1]
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return lambda d: struct.unpack("<HH", d[6:10])[::-1]
    if data[:2] == b"BM":
        return _bmp
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff
    raise ValueError(
        "not a JPEG, PNG, WebP, BMP, GIF or TIFF file" if data else "the file is empty"
    )


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("the file is damaged within its header")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _BARE_MARKERS:
            at += 2
        elif marker in _SOF:
            return struct.unpack(">HH", data[at + 5 : at + 9])
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack("<I", data[14:18])[0] == 12:  # OS/2's header
        return struct.unpack("<HH", data[18:22])[::-1]
    width, height = struct.unpack("<ii", data[18:26])
    return abs(height), abs(width)  # a negative height means rows from the top


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
    elif kind == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (v & 0x3FFF for v in struct.unpack("<HH", data[26:30]))
    return height, width


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:1] == b"I" else ">"
    (directory,) = struct.unpack(order + "I", data[4:8])
    (entries,) = struct.unpack(order + "H", data[directory : directory + 2])
    values = {}
    for index in range(entries):
        entry = data[directory + 2 + 12 * index : directory + 14 + 12 * index]
        tag, kind = struct.unpack(order + "HH", entry[:4])
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT) and kind in _TIFF_TYPES:
            code = order + _TIFF_TYPES[kind]
            values[tag] = struct.unpack(code, entry[8 : 8 + struct.calcsize(code)])[0]
    if len(values) < 2:
        raise ValueError("the TIFF header states no size")
    return values[_TIFF_HEIGHT], values[_TIFF_WIDTH]
