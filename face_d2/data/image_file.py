"""Image files that nobody checked, as arrays: one reader for training, evaluation and prediction.

A file is either read whole or refused. OpenCV fills the missing part of a truncated JPEG with grey
and says nothing; Pillow, which decodes here, does not. Images of more than 178,956,970 pixels
(twice ``PIL.Image.MAX_IMAGE_PIXELS``) are refused by their header.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from face_d2.utils.file_kind import known_mistake

__all__ = [
    "FORMATS",
    "MAX_IMAGE_PIXELS",
    "UnreadableImageError",
    "image_size",
    "is_turned",
    "pixels_of",
    "read_image",
    "read_shrunk",
]

#: Pillow refuses larger ones by their header: 540 MB decoded. 13,000 x 13,000 passes.
MAX_IMAGE_PIXELS = 2 * Image.MAX_IMAGE_PIXELS

#: What is tried, whatever a file is called. One of Pillow's others starts a program (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

_EXIF_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
# What is left to mirror after that swap: (rows, columns).
_MIRRORED = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
_FROM_RGBX = {"BGR": cv2.COLOR_RGBA2BGR, "RGB": cv2.COLOR_RGBA2RGB}
_SHRINKS = (1, 2, 4, 8)  # what a JPEG decoder can divide sides by


class UnreadableImageError(ValueError):
    """The file is there, but it is no image, damaged, cut short, or has too many pixels."""


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image as it is shown, from its header alone.

    Raises:
        UnreadableImageError: the header cannot be read, or states too many pixels.
        OSError: there is no such file, or it cannot be opened.
    """
    with _opened(path) as image:
        return _upright_size(image)


def is_turned(path: str | Path) -> bool:
    """Whether EXIF data say that the image is shown in another orientation than it is stored.

    Raises:
        UnreadableImageError, OSError: as of :func:`image_size`.
    """
    with _opened(path) as image:
        return _orientation(image) != 1


def read_image(
    image: str | Path | bytes, color_order: str = "BGR", formats: Sequence[str] = FORMATS
) -> NDArray[np.uint8]:
    """Decodes an image: (H, W, 3), as it is shown (EXIF orientation applied).

    Gray, palette, CMYK and 16 bits a channel (the upper 8 count) are converted, transparency is
    dropped, of an animation the first frame counts.

    Args:
        image: the file, whose name's ending does not matter, or what is in it.
        color_order: "BGR" or "RGB".
        formats: Pillow's names of what is tried.

    Raises:
        UnreadableImageError: it cannot be decoded to the end.
        OSError: there is no such file, or it cannot be opened.
    """
    with _opened(image, formats) as opened:
        return pixels_of(opened, color_order)


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
    with _opened(path) as image:
        shrink = 1
        if image.format in ("JPEG", "MPO"):  # MPO: a JPEG with further pictures behind it
            width, height = image.size
            shrink = max(s for s in _SHRINKS if s == 1 or s <= min(1 / scale, width, height))
            image.draft(None, (width // shrink, height // shrink))
        return pixels_of(image, "BGR"), shrink


def pixels_of(image: Image.Image, color_order: str) -> NDArray[np.uint8]:
    """What :func:`read_image` gives for the file of a Pillow image."""
    # Before loading, when Pillow has not yet turned it (it does so for TIFF alone).
    orientation = 1 if image.format == "TIFF" else _orientation(image)
    image.load()
    if image.mode.startswith("I"):  # 16 bits, which Pillow may keep in 32
        high = (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
        pixels = np.repeat(high[..., None], 3, axis=2)
    else:
        colors = image if image.mode == "RGB" else image.convert("RGB")
        # Pillow keeps four bytes a pixel; handing them out as they are costs it a fifth of packing
        # three of them.
        four = np.frombuffer(colors.tobytes("raw", "RGBX"), np.uint8)
        four = four.reshape(image.height, image.width, 4)
        pixels = cv2.cvtColor(four, _FROM_RGBX[color_order])
    if orientation in _TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = _MIRRORED.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::rows, ::columns])


@contextmanager
def _opened(source: str | Path | bytes, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """The image, its header read; failures in the block are those of the file."""
    in_memory = isinstance(source, bytes)
    with io.BytesIO(source) if in_memory else open(source, "rb") as file:
        try:
            with Image.open(file, formats=formats) as image:
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


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where there is none or EXIF is damaged."""
    # In a PNG it may stand behind the pixels, where a look at the header does not find it.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # the pixels are good whatever EXIF's parser raises
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if _orientation(image) in _TRANSPOSED else (height, width)
