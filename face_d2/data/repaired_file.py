"""Repair of files that contain a complete picture but that the decoder refuses.

Damaged pictures are not repaired: missing pixels cannot be restored.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

__all__ = ["repaired_bytes"]

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
#: Pillow refuses texts and profiles with more bytes than this after decompression.
_MAX_PROFILE = 2**20
_SCAN, _END, _RESTARTS = b"\xff\xda", b"\xff\xd9", b"\xff\xdd"


def repaired_bytes(data: bytes) -> bytes | None:
    """Returns a decodable file of the same picture, or None if no known repair applies.

    - The texts of a PNG, and a color profile of more than a megabyte, are removed. Pillow refuses
      files with megabytes of text, which some image generators and editors write.
    - A JPEG that lacks only its end marker gets one.
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
    shorter = b"".join([*kept, data[at:]])
    return shorter if len(shorter) < len(data) else None


def _unpacks_to_much(profile: bytes) -> bool:
    packed = profile[profile.find(b"\0") + 2 :]
    try:
        return len(zlib.decompressobj().decompress(packed, _MAX_PROFILE + 1)) > _MAX_PROFILE
    except zlib.error:
        return False


def _with_end(data: bytes) -> bytes | None:
    """The JPEG with an end marker, or None if more than the marker is missing.

    The decoder silently fills missing pixels with gray. Therefore the file is also decoded with two
    different fillers before the marker: if a coefficient is missing, the decoder reads the filler
    in its place, and the pictures differ. This test does not work for files with several scans
    (progressive) or with restart markers, which are not repaired.
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
