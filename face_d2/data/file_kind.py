"""Identifies images and videos by the first bytes of a file, or else by its suffix.

Prediction, training, evaluation and ``face-d2-check-dataset`` all read the formats in
:data:`READ_FORMATS`.
"""

from __future__ import annotations

import importlib.util
import re
import stat
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HEAD_BYTES", "READ_FORMATS", "FileKind", "kind_of_bytes", "kind_of_file"]

#: Number of bytes that :func:`kind_of_bytes` needs.
HEAD_BYTES = 4096

#: Image formats that are read, by Pillow's names. AVIF needs a Pillow with AVIF support (11.3 and
#: later), HEIF the extra [heif]; :meth:`FileKind.why_not_read` explains this.
READ_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")

_CONVERT = "convert it to JPEG or PNG"
_RAW = f"a camera's raw file, which is not read; develop it, or {_CONVERT}"


def _endings(words: str) -> frozenset[str]:
    return frozenset(f".{word}" for word in words.split())


#: Suffixes of images and videos. A file with such a suffix and other content counts as damaged. The
#: suffix ".ts" is left out, because TypeScript uses it too.
_IMAGE_ENDINGS = _endings(
    "jpg jpeg jpe jfif jfi mpo png apng webp bmp dib gif tif tiff pbm pgm ppm pnm jp2 j2k jpx avif "
    "avifs heic heif hif jxl psd psb exr hdr tga pcx qoi dng nef arw cr2 cr3 raf orf rw2 pef srw"
)
_VIDEO_ENDINGS = _endings(
    "mp4 m4v mov qt avi divx mkv webm mpg mpeg mpe m2v vob wmv asf mts m2ts m2t 3gp 3g2 flv f4v "
    "ogv mxf dv rm rmvb ivf y4m h264 264 h265 265 hevc mjpg mjpeg wtv"
)

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_SOUND_BRANDS = {b"M4A ", b"M4B ", b"M4P "}
_QUICKTIME_ATOMS = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_PPM = re.compile(rb"P[1-6]\s+(#[^\n]*\n\s*)*\d+\s+(#[^\n]*\n\s*)*\d+\s")
_BITMAP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}

#: First bytes, kind, format.
_SIGNATURES: tuple[tuple[bytes | tuple[bytes, ...], str, str], ...] = (
    (b"\xff\xd8\xff", "image", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "image", "PNG"),
    ((b"GIF87a", b"GIF89a"), "image", "GIF"),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "image", "TIFF"),
    ((b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51"), "image", "JPEG2000"),
    ((b"\xff\x0a", b"\0\0\0\x0cJXL "), "image", "JPEG XL"),
    (b"8BPS", "image", "Photoshop"),
    (b"v/1\x01", "image", "OpenEXR"),
    (b"#?RADIANCE", "image", "Radiance HDR"),
    (b"qoif", "image", "QOI"),
    (b"DDS ", "image", "DDS"),
    ((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0"), "image", "raw"),
    (b"\x1aE\xdf\xa3", "video", "Matroska"),
    (b"FLV\x01", "video", "FLV"),
    (b"0&\xb2u\x8ef\xcf\x11", "video", "ASF"),
    ((b"\0\0\x01\xba", b"\0\0\x01\xb3"), "video", "MPEG"),
    (b"\0\0\0\x01g", "video", "H.264"),
    (b"\0\0\0\x01@", "video", "H.265"),
    (b"\x06\x0e+4\x02\x05\x01\x01", "video", "MXF"),
    (b".RMF", "video", "RealMedia"),
    (b"DKIF", "video", "IVF"),
    (b"YUV4MPEG2", "video", "YUV4MPEG2"),
    (b"\x1f\x07\0", "video", "DV"),
    ((b"ID3", b"fLaC"), "other", "sound"),
    (b"%PDF", "other", "a PDF document, which is not searched for pictures"),
    (b"PK\x03\x04", "other", "an archive or document, which is not searched for pictures"),
    (
        (b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b"),
        "other",
        "an archive, which is not searched for pictures",
    ),
    ((b"\0\x05\x16\x07", b"\0\x05\x16\0"), "other", "macOS metadata of another file"),
)


@dataclass(frozen=True)
class FileKind:
    """The kind of a file.

    Attributes:
        kind: "image", "video" or "other".
        format: its format; for "other" a description.
    """

    kind: str
    format: str

    @property
    def why_not_read(self) -> str | None:
        """Why an image is not read and what to do; None if it is read."""
        if self.format == "HEIF" and importlib.util.find_spec("pillow_heif") is None:
            return f"is HEIC; install pillow-heif (pip install 'face-d2[heif]') or {_CONVERT}"
        if self.format == "AVIF" and importlib.util.find_spec("PIL._avif") is None:
            return f"is AVIF, which this Pillow does not read; update Pillow to 11.3 or {_CONVERT}"
        if self.format == "raw":
            return f"is {_RAW}"
        if self.format not in READ_FORMATS:
            return f"is {self.format}, which is not read; {_CONVERT}" if self.format else "unknown"
        return None


def kind_of_bytes(head: bytes) -> FileKind | None:
    """Kind of a file by its first :data:`HEAD_BYTES`; None if they are not known."""
    if head[8:10] == b"CR" and head[:4] == b"II*\0":
        return FileKind("image", "raw")
    for start, kind, name in _SIGNATURES:
        if head.startswith(start):
            return FileKind(kind, name)
    if head[4:8] == b"ftyp":
        return _of_brand(head)
    if head[4:8] in _QUICKTIME_ATOMS:
        return FileKind("video", "QuickTime")
    if head[:4] == b"RIFF":
        name = head[8:12]
        if name == b"WEBP":
            return FileKind("image", "WEBP")
        return FileKind("video", "AVI") if name == b"AVI " else FileKind("other", "sound")
    if head[:4] == b"OggS":
        moving = b"theora" in head[:200] or b"\x01video" in head[:200]
        return FileKind("video", "Ogg") if moving else FileKind("other", "sound")
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS:
        return FileKind("image", "BMP")
    if _PPM.match(head):
        return FileKind("image", "PPM")
    # MPEG transport streams have packets of 188 bytes; those of cameras have 192, with a time code.
    for first, length in ((0, 188), (4, 192)):
        starts = range(first, min(len(head), first + 5 * length), length)
        if len(starts) > 2 and all(head[at] == 0x47 for at in starts):
            return FileKind("video", "MPEG-TS")
    return None


def kind_of_file(path: Path, transport_streams: bool = False) -> FileKind:
    """Kind of a file by its first bytes, or else by its suffix, or else "other".

    Args:
        path: the file; links are followed.
        transport_streams: whether ".ts" is a suffix of videos; TypeScript uses it too.

    Raises:
        OSError: the file does not exist or may not be read.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        return FileKind("other", "a device, pipe or socket")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    found = kind_of_bytes(head)
    if found is not None:
        return found
    ending = path.suffix.lower()
    if ending in _IMAGE_ENDINGS:
        return FileKind("image", "")
    if ending in _VIDEO_ENDINGS or (transport_streams and ending == ".ts"):
        return FileKind("video", "")
    return FileKind("other", "neither a picture nor a video" if head else "empty")


def _of_brand(head: bytes) -> FileKind:
    """Kind by the brands in the first box of an ISO base media file (ISO/IEC 14496-12)."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brand = head[8:12]
    brands = {brand, *(head[at : at + 4] for at in range(16, length - 3, 4))}
    if brand in (b"avif", b"avis") or (brand in _HEIF_BRANDS and brands & {b"avif", b"avis"}):
        return FileKind("image", "AVIF")
    if brand in _HEIF_BRANDS:
        return FileKind("image", "HEIF")
    if brand == b"crx ":
        return FileKind("image", "raw")
    if brand in _SOUND_BRANDS:
        return FileKind("other", "sound")
    return FileKind("video", "MP4")
