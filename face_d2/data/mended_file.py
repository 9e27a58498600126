"""Whole pictures in files that a decoder's guards refuse, brought into a form that it takes.

Damaged pictures are not mended: what is missing is missing.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

__all__ = ["mended_bytes"]

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
#: Pillow refuses texts and profiles that are larger than this when they are unpacked.
_MOST_PROFILE = 2**20
_SCAN, _END, _RESTARTS = b"\xff\xda", b"\xff\xd9", b"\xff\xdd"


def mended_bytes(data: bytes) -> bytes | None:
    """Returns a decodable file of the same picture, or None if no known repair applies.

    - A PNG loses its texts, and a color profile of more than a megabyte. Image generators and
      editors leave megabytes of text in their files, which Pillow refuses whole.
    - A JPEG whose end marker alone is missing gets one.
    """
    if data.startswith(_PNG):
        return _without_texts(data)
    if data.startswith(b"\xff\xd8") and data.rfind(_END) < data.rfind(_SCAN):
        return _with_end(data)
    return None


def _without_texts(data: bytes) -> bytes | None:
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunk = data[at : at + 12 + length]
        name = chunk[4:8]
        if name not in _TEXTS and not (name == b"iCCP" and _unpacks_to_much(chunk[8:-4])):
            kept.append(chunk)
        at += 12 + length
    mended = b"".join([*kept, data[at:]])
    return mended if len(mended) < len(data) else None


def _unpacks_to_much(profile: bytes) -> bool:
    packed = profile[profile.find(b"\0") + 2 :]
    try:
        return len(zlib.decompressobj().decompress(packed, _MOST_PROFILE + 1)) > _MOST_PROFILE
    except zlib.error:
        return False


def _with_end(data: bytes) -> bytes | None:
    """The JPEG with an end marker, if nothing but that is missing.

    The decoder fills what is missing with gray and does not say so. Therefore the file is decoded
    with two different runs of bytes before the marker: where a single coefficient is missing, they
    are taken for it, and the pictures differ. Two kinds of files cannot be told in this way and are
    left alone: those of several scans (progressive), and those with restart markers.
    """
    frame = data.rfind(b"\xff\xc0")  # the last: a thumbnail has its own, before the picture's
    if frame < 0 or data.count(_SCAN, frame) != 1 or _RESTARTS in data[: data.rfind(_SCAN)]:
        return None
    whole = data.rstrip(b"\xff")
    ends = [whole + filler + _END for filler in (b"", b"\x55" * 64, b"\xe3\x1a" * 32)]
    try:
        plain, *others = (np.asarray(Image.open(io.BytesIO(e), formats=("JPEG",))) for e in ends)
    except (OSError, SyntaxError, ValueError):
        return None
    return ends[0] if all(np.array_equal(plain, other) for other in others) else None
