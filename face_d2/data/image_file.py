"""Image files that nobody checked, as arrays: one reader for training, evaluation and prediction.

A file is either read whole or refused. OpenCV fills the missing part of a truncated JPEG with gray
and says nothing; Pillow, which decodes here, does not. Images of more than 178,956,970 pixels
(twice ``PIL.Image.MAX_IMAGE_PIXELS``) are refused by their header.
"""

from __future__ import annotations

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

#: Pillow refuses larger ones by their header: 540 MB decoded. 13,000 x 13,000 passes.
MAX_IMAGE_PIXELS = 2 * Image.MAX_IMAGE_PIXELS

_EXIF_ORIENTATION = 0x0112
_DNG_VERSION, _SUBFILE, _SUB_IFDS = 50706, 254, 330
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
# What is left to mirror after that swap: (rows, columns).
_MIRRORED = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
_FROM_RGBX = {"BGR": cv2.COLOR_RGBA2BGR, "RGB": cv2.COLOR_RGBA2RGB}
_SHRINKS = (1, 2, 4, 8)  # what a JPEG decoder can divide sides by
#: Bits that a sensor's values have, whatever they are stored in.
_DEPTHS = (8, 10, 12, 14, 16)
#: Formats of several pages or frames. The further pictures of an MPO (the other eye's, a gain map)
#: are no pages, and Pillow's plugin for single pictures counts as one page whatever it says.
_PAGED = ("TIFF", "GIF", "PNG", "WEBP", "AVIF", "HEIF")

_Result = TypeVar("_Result")


class UnreadableImageError(ValueError):
    """The file is there, but it is no image, damaged, cut short, or has too many pixels."""


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image as it is shown, from its header alone.

    Raises:
        UnreadableImageError: the header cannot be read, or states too many pixels.
        OSError: there is no such file, or it cannot be opened.
    """
    return with_image(path, _upright_size)


def is_turned(path: str | Path) -> bool:
    """Whether EXIF data say that the image is shown in another orientation than it is stored.

    Raises:
        UnreadableImageError, OSError: as of :func:`image_size`.
    """
    return with_image(path, lambda image: orientation_of(image) != 1)


def page_count(path: str | Path) -> int:
    """How many pages (TIFF) or frames (GIF, PNG, WebP, AVIF, HEIF) an image file has.

    Raises:
        UnreadableImageError, OSError: as of :func:`image_size`.
    """
    return with_image(path, _page_count)


def read_image(image: str | Path | bytes, color_order: str = "BGR") -> NDArray[np.uint8]:
    """Decodes an image: (H, W, 3), as it is shown (EXIF orientation applied).

    Gray, palette and CMYK are converted, 16 bits a channel are scaled (:func:`to_8_bits`),
    transparency is dropped, and of several pages or frames the first counts.

    Args:
        image: the file, whose name's ending does not matter, or what is in it.
        color_order: "BGR" or "RGB".

    Raises:
        UnreadableImageError: it cannot be decoded to the end, or holds floats.
        OSError: there is no such file, or it cannot be opened.
    """
    return with_image(image, partial(pixels_of, color_order=color_order, data=_bytes_of(image)))


def read_pages(path: str | Path) -> Iterator[NDArray[np.uint8]]:
    """Decodes every page or frame, each as :func:`read_image` does, one in memory at a time.

    Raises:
        UnreadableImageError, OSError: as of :func:`read_image`, when the faulty page is met.
    """
    with opened_image(path) as image:
        for page in range(_page_count(image)):
            image.seek(page)
            yield pixels_of(image, "BGR", _bytes_of(path), page)


def read_shrunk(path: str | Path, scale: float) -> tuple[NDArray[np.uint8], int]:
    """Decodes an image no larger than it will be needed.

    A JPEG that will be shrunk is decoded at 1/2, 1/4 or 1/8, which skips most of the work and
    averages pixels instead of skipping them. Its EXIF orientation is applied.

    Args:
        path: the file.
        scale: what its lengths will be multiplied by.

    Returns:
        The image (H, W, 3) BGR uint8 and the divisor of its lengths: a point x of the original lies
        at x / divisor.

    Raises:
        UnreadableImageError: it cannot be decoded to the end.
        OSError: there is no such file, or it cannot be opened.
    """

    def shrunk(image: Image.Image) -> tuple[NDArray[np.uint8], int]:
        shrink = 1
        if image.format in ("JPEG", "MPO"):  # MPO: a JPEG with further pictures behind it
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
    """What :func:`read_image` gives for the file of a Pillow image.

    Args:
        image: the image, at the page wanted.
        color_order: "BGR" or "RGB".
        data: gives the file's content. It is asked for only where Pillow cannot keep what counts:
            the lower bits of a dark color picture of 16 bits a channel.
        page: which page it is.

    Raises:
        ValueError: it holds floats or whole numbers beyond 0-65535, or is such a dark picture and
            ``data`` is None.
    """
    # Before loading, when Pillow has not yet turned it (it does so for TIFF alone).
    orientation = 1 if image.format == "TIFF" else orientation_of(image)
    deep_color = is_deep_color(image)
    image.load()
    if image.mode == "F":
        raise ValueError(
            "got an image of mode F (floats), whose range is not known; scale its values to 0-255 "
            "and save or convert it with 8 bits"
        )
    if image.mode.startswith("I"):  # 16 bits, which Pillow may keep in 32
        values = np.asarray(image)
        if image.mode == "I" and values.size and not 0 <= values.min() <= values.max() < 2**16:
            raise ValueError(
                "got an image of mode I with values beyond 0-65535; scale it to 8 bits first"
            )
        pixels = np.repeat(to_8_bits(values.astype(np.uint16))[..., None], 3, axis=2)
    else:
        colors = image if image.mode == "RGB" else image.convert("RGB")
        # Pillow keeps four bytes a pixel; handing them out as they are costs it a fifth of packing
        # three of them.
        four = np.frombuffer(colors.tobytes("raw", "RGBX"), np.uint8)
        four = four.reshape(image.height, image.width, 4)
        pixels = cv2.cvtColor(four, _FROM_RGBX[color_order])
        if deep_color and pixels.size and pixels.max() < 64:
            if data is None:
                raise ValueError(
                    "got a dark image of 16 bits a channel, of which Pillow keeps 8; give its path"
                )
            bgr = to_8_bits(deep_pixels(data(), page)[..., :3])
            pixels = bgr if color_order == "BGR" else bgr[..., ::-1]
    return turned_upright(pixels, orientation)


def to_8_bits(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The upper 8 of the bits that are used.

    Thermal and scientific cameras store 10, 12 or 14 bits in 16. Where no value of a picture needs
    more, it is scaled as a picture of so many bits: taken as one of 16 it would be black.
    """
    used = int(values.max()).bit_length() if values.size else 0
    depth = next(depth for depth in _DEPTHS if depth >= used)
    return (values >> (depth - 8)).astype(np.uint8)


def is_deep_color(image: Image.Image) -> bool:
    """Whether a file, not yet decoded, has 16 bits a channel in color, of which Pillow keeps 8."""
    return image.mode in ("RGB", "RGBA", "LA") and any(
        ";16" in str(tile[3]) for tile in getattr(image, "tile", ())
    )


def deep_pixels(data: bytes, page: int = 0) -> NDArray[np.uint16]:
    """A page of a PNG or TIFF with all its bits: (H, W, 3) BGR or (H, W, 4) BGRA.

    A TIFF is upright, as OpenCV turns it.

    Raises:
        UnreadableImageError: OpenCV cannot decode it.
    """
    buffer = np.frombuffer(data, np.uint8)
    if page == 0:
        pixels = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    else:
        _, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
        pixels = pages[page] if page < len(pages) else None
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise UnreadableImageError("OpenCV cannot decode its 16 bits a channel")
    return pixels


def turned_upright(pixels: NDArray, orientation: int) -> NDArray:
    """Pixels (H, W, ...) of an image with an EXIF orientation as they are shown."""
    if orientation in _TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = _MIRRORED.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where there is none or EXIF is damaged."""
    # In a PNG it may stand behind the pixels, where a look at the header does not find it.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # the pixels are good whatever EXIF's parser raises
        return 1


@contextmanager
def opened_image(source: str | Path | bytes) -> Iterator[Image.Image]:
    """The image, its header read; failures in the block are those of the file.

    Raises:
        UnreadableImageError: it cannot be read, or the block failed.
        OSError: there is no such file, or it cannot be opened.
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
        # Besides OSError, damaged files make Pillow raise whatever its parsing runs into:
        # SyntaxError, struct.error, EOFError, IndexError, DecompressionBombError ...
        except Exception as error:
            reason = str(error)
            if isinstance(error, UnidentifiedImageError):
                reason = "not an image, or of a format that is not read"
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
    return int(getattr(image, "n_frames", 1)) if image.format in _PAGED else 1


def _refuse_raw(image: Image.Image) -> None:
    """Of a camera's raw file, a TIFF outside, Pillow would show the thumbnail."""
    tags = image.tag_v2
    if _DNG_VERSION in tags or (tags.get(_SUBFILE) == 1 and _SUB_IFDS in tags):
        raise ValueError("is a camera's raw file, which is not read; develop it to JPEG or TIFF")


@cache
def _register_heif() -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if orientation_of(image) in _TRANSPOSED else (height, width)
