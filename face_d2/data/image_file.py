"""Decoding of untrusted image files, for training, evaluation and prediction.

A file is either read completely or refused. OpenCV silently fills the missing part of a truncated
JPEG with gray; Pillow, which is used here, reports an error. Images with more than 178,956,970
pixels (twice ``PIL.Image.MAX_IMAGE_PIXELS``) are refused before they are decoded.
"""

from __future__ import annotations

import face_d2.utils.opencv  # isort: skip  (says what to do if it does not import)
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from face_d2.data.file_kind import HEAD_BYTES, kind_of_bytes
from face_d2.data.repaired_file import repaired_bytes
from face_d2.utils.known_mistake import known_mistake

__all__ = [
    "MAX_IMAGE_PIXELS",
    "PAGED_FORMATS",
    "UnreadableImageError",
    "deep_pixels",
    "image_size",
    "is_deep_color",
    "is_turned",
    "opened_image",
    "orientation_of",
    "page_count",
    "pixels_of",
    "read_image",
    "read_pages",
    "read_shrunk",
    "to_8_bits",
    "turned_upright",
    "with_image",
]

#: Pillow refuses larger images by their header: 540 MB decoded; 13,000 x 13,000 passes.
MAX_IMAGE_PIXELS = 2 * Image.MAX_IMAGE_PIXELS

_EXIF_ORIENTATION = 0x0112
_DNG_VERSION, _SUBFILE, _SUB_IFDS = 50706, 254, 330
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
# Whether to flip after this swap: (rows, columns).
_MIRRORED = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
_FROM_RGBX = {"BGR": cv2.COLOR_RGBA2BGR, "RGB": cv2.COLOR_RGBA2RGB}
_SHRINKS = (1, 2, 4, 8)  # factors by which a JPEG decoder can shrink
#: Possible numbers of bits of a sensor's values, which are stored in 16 bits.
_DEPTHS = (8, 10, 12, 14, 16)
#: Formats with several pages or frames. The further pictures of an MPO (the other eye, a gain map)
#: are not pages. Files that Pillow's plugins for single pictures read have one page.
PAGED_FORMATS = ("TIFF", "GIF", "PNG", "WEBP", "AVIF", "HEIF")

_Result = TypeVar("_Result")


class UnreadableImageError(ValueError):
    """The file exists, but is not an image, damaged, truncated, or has too many pixels."""


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image after EXIF orientation; only the header is read.

    Raises:
        UnreadableImageError: the header cannot be read, or has too many pixels.
        OSError: the file does not exist or cannot be opened.
    """
    return with_image(path, _upright_size)


def is_turned(path: str | Path) -> bool:
    """Whether the EXIF orientation rotates or mirrors the pixels; errors as :func:`image_size`."""
    return with_image(path, lambda image: orientation_of(image) != 1)


def page_count(path: str | Path) -> int:
    """Number of pages (TIFF) or frames (other formats) of a file; errors as :func:`image_size`."""
    return with_image(path, _page_count)


def read_image(image: str | Path | bytes, color_order: str = "BGR") -> NDArray[np.uint8]:
    """Decodes an image to (H, W, 3) and applies its EXIF orientation.

    Gray, palette and CMYK images are converted, 16-bit channels are scaled (:func:`to_8_bits`),
    transparency is dropped, and only the first page or frame is read.

    Args:
        image: the path of a file with any suffix, or the bytes of a file.
        color_order: "BGR" or "RGB".

    Raises:
        UnreadableImageError: the image cannot be decoded completely, or contains floats.
        OSError: the file does not exist or cannot be opened.
    """
    return with_image(image, partial(pixels_of, color_order=color_order, data=_bytes_of(image)))


def read_pages(path: str | Path) -> Iterator[NDArray[np.uint8]]:
    """Decodes every page or frame like :func:`read_image`; one page is in memory at a time.

    Raises:
        UnreadableImageError, OSError: see :func:`read_image`; raised at the page with the error.
    """
    with opened_image(path) as image:
        for page in range(_page_count(image)):
            image.seek(page)
            yield pixels_of(image, "BGR", _bytes_of(path), page)


def read_shrunk(path: str | Path, scale: float) -> tuple[NDArray[np.uint8], int]:
    """Decodes an image that will be shrunk, at a reduced size if possible.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which is faster and averages pixels. The EXIF
    orientation is applied.

    Args:
        path: the file.
        scale: factor by which the image will be resized.

    Returns:
        The image (H, W, 3) BGR uint8, and the divisor of its sides: a point x of the original image
        is at x / divisor.

    Raises:
        UnreadableImageError: the image cannot be decoded completely.
        OSError: the file does not exist or cannot be opened.
    """

    def shrunk(image: Image.Image) -> tuple[NDArray[np.uint8], int]:
        shrink = 1
        if image.format in ("JPEG", "MPO"):  # an MPO is a JPEG with further pictures
            width, height = image.size
            shrink = max(s for s in _SHRINKS if s == 1 or s <= min(1 / scale, width, height))
            image.draft(None, (width // shrink, height // shrink))
        return pixels_of(image, "BGR", _bytes_of(path)), shrink

    return with_image(path, shrunk)


def pixels_of(
    image: Image.Image,
    color_order: str,
    data: Callable[[], bytes] | None = None,
    page: int = 0,
) -> NDArray[np.uint8]:
    """The pixels of a Pillow image, equal to :func:`read_image` of its file.

    Args:
        image: the image, at the page to read.
        color_order: "BGR" or "RGB".
        data: returns the content of the file. It is called only if Pillow loses information: the
            lower bits of a dark color image with 16 bits per channel.
        page: index of the page.

    Raises:
        ValueError: the image contains floats or integers outside 0-65535, or is such a dark image
            and ``data`` is None.
    """
    # Before loading, because Pillow rotates a TIFF when it loads it.
    orientation = 1 if image.format == "TIFF" else orientation_of(image)
    deep_color = is_deep_color(image)
    image.load()
    if image.mode == "F":
        raise ValueError(
            "got an image of mode F (floats), whose range is unknown; scale its values to 0-255 "
            "and convert it to 8 bits"
        )
    if image.mode.startswith("I"):  # 16 bits, which Pillow may store in 32
        values = np.asarray(image)
        if image.mode == "I" and values.size and not 0 <= values.min() <= values.max() < 2**16:
            raise ValueError(
                "got an image of mode I with values outside 0-65535; scale it to 8 bits first"
            )
        pixels = np.repeat(to_8_bits(values.astype(np.uint16))[..., None], 3, axis=2)
    else:
        colors = image if image.mode == "RGB" else image.convert("RGB")
        # Pillow stores four bytes per pixel. Copying all four takes a fifth of the time of packing
        # three of them.
        four = np.frombuffer(colors.tobytes("raw", "RGBX"), np.uint8)
        four = four.reshape(image.height, image.width, 4)
        pixels = cv2.cvtColor(four, _FROM_RGBX[color_order])
        if deep_color and pixels.size and pixels.max() < 64:
            if data is None:
                raise ValueError(
                    "got a dark image with 16 bits per channel; Pillow keeps 8, so pass its path "
                    "instead"
                )
            bgr = to_8_bits(deep_pixels(data(), page)[..., :3])
            pixels = bgr if color_order == "BGR" else bgr[..., ::-1]
    return turned_upright(pixels, orientation)


def to_8_bits(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Scales 16-bit values to 8 bits, by the number of bits that are used.

    Thermal and scientific cameras store values of 10, 12 or 14 bits in 16 bits. An image whose
    values fit into one of these is scaled from this number of bits; from 16, it would be almost
    black.
    """
    used = int(values.max()).bit_length() if values.size else 0
    depth = next(depth for depth in _DEPTHS if depth >= used)
    return (values >> (depth - 8)).astype(np.uint8)


def is_deep_color(image: Image.Image) -> bool:
    """Whether a color image that is not decoded yet has 16 bits per channel (Pillow keeps 8)."""
    return image.mode in ("RGB", "RGBA", "LA") and any(
        ";16" in str(tile[3]) for tile in getattr(image, "tile", ())
    )


def deep_pixels(data: bytes, page: int = 0) -> NDArray[np.uint16]:
    """A page of a PNG or TIFF with 16 bits: (H, W, 3) BGR or (H, W, 4) BGRA.

    OpenCV applies the orientation of a TIFF.

    Raises:
        UnreadableImageError: OpenCV cannot decode the file.
    """
    buffer = np.frombuffer(data, np.uint8)
    if page == 0:
        pixels = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    else:
        _, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
        pixels = pages[page] if page < len(pages) else None
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise UnreadableImageError("OpenCV cannot decode its 16-bit channels")
    return pixels


def turned_upright(pixels: NDArray, orientation: int) -> NDArray:
    """Applies an EXIF orientation to pixels (H, W, ...)."""
    if orientation in _TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = _MIRRORED.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if it is missing or damaged."""
    # In a PNG, EXIF may follow the pixels, so the header is not enough.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF data do not affect the pixels
        return 1


@contextmanager
def opened_image(source: str | Path | bytes) -> Iterator[Image.Image]:
    """Opens an image and reads its header; errors in the block count as errors of the file.

    Raises:
        UnreadableImageError: the image cannot be read, or the block failed.
        OSError: the file does not exist or cannot be opened.
    """
    in_memory = isinstance(source, bytes)
    with io.BytesIO(source) if in_memory else open(source, "rb") as file:
        try:
            kind = kind_of_bytes(file.read(HEAD_BYTES))
            file.seek(0)
            if kind is None or kind.kind != "image":
                raise UnidentifiedImageError
            if kind.why_not_read:
                raise ValueError(kind.why_not_read)
            if kind.format == "HEIF":
                _register_heif()
            with Image.open(file, formats=(kind.format,)) as image:
                if kind.format == "TIFF":
                    _refuse_raw(image)
                yield image
        except MemoryError:
            raise
        # For damaged files, Pillow raises many exceptions besides OSError: SyntaxError,
        # struct.error, EOFError, IndexError, DecompressionBombError ...
        except Exception as error:
            reason = str(error)
            if isinstance(error, UnidentifiedImageError):
                reason = "not an image, or an unsupported format"
                if not in_memory and (mistake := known_mistake(source)):
                    reason = mistake
            name = f"an image of {len(source)} bytes" if in_memory else source
            raise UnreadableImageError(f"{name} cannot be decoded ({reason})") from error


def with_image(source: str | Path | bytes, use: Callable[[Image.Image], _Result]) -> _Result:
    """Calls ``use`` with an image, or with a repaired copy if the decoder refuses the file."""
    try:
        with opened_image(source) as image:
            return use(image)
    except UnreadableImageError as error:
        repaired = repaired_bytes(_bytes_of(source)())
        if repaired is None:
            raise
        try:
            with opened_image(repaired) as image:
                return use(image)
        except UnreadableImageError:
            raise error from None


def _bytes_of(source: str | Path | bytes) -> Callable[[], bytes]:
    return lambda: source if isinstance(source, bytes) else Path(source).read_bytes()


def _page_count(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1)) if image.format in PAGED_FORMATS else 1


def _refuse_raw(image: Image.Image) -> None:
    """Refuses raw files of cameras, which look like TIFF; Pillow would read the thumbnail."""
    tags = image.tag_v2
    if _DNG_VERSION in tags or (tags.get(_SUBFILE) == 1 and _SUB_IFDS in tags):
        raise ValueError("is a raw file of a camera, which is not read; convert it to JPEG or TIFF")


@cache
def _register_heif() -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if orientation_of(image) in _TRANSPOSED else (height, width)
