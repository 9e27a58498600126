"""Conversion of paths, bytes, arrays and Pillow images to one form: (H, W, 3) uint8 BGR."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face_d2.data.image_file import MAX_IMAGE_PIXELS, pixels_of, read_image, to_8_bits

__all__ = ["COLOR_ORDERS", "ImageLike", "image_name", "load_image"]

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[Any] | Image.Image"

COLOR_ORDERS = ("BGR", "RGB")


def load_image(image: ImageLike, color_order: str = "BGR") -> NDArray[np.uint8]:
    """Reads or converts an image.

    Files and bytes are read as in training (:func:`face_d2.data.image_file.read_image`), in the
    formats of :data:`face_d2.data.file_kind.READ_FORMATS`. Gray, palette, CMYK and 16-bit images
    are converted, the EXIF orientation is applied, transparency is dropped, and only the first page
    or frame is read.

    Args:
        image: a path, the bytes of an image file, a Pillow image, or an array of uint8 or uint16
            (scaled by :func:`face_d2.data.image_file.to_8_bits`): (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4).
        color_order: order of an array's first three channels, "BGR" (as OpenCV reads) or "RGB".
            It does not apply to files, bytes and Pillow images.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file cannot be read.
        ValueError: the image is a URL, not an image, damaged, or larger than
            ``MAX_IMAGE_PIXELS``; the array has another dtype or shape or no pixels; or
            ``color_order`` is unknown.
        TypeError: ``image`` has another type.
    """
    if color_order not in COLOR_ORDERS:
        raise ValueError(f'color_order is {color_order!r}; expected "BGR" or "RGB"')
    if isinstance(image, str) and "://" in image:
        raise ValueError(
            f"{image} is a URL, and images are not downloaded; save the image to a file, or pass "
            "its bytes"
        )
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; pass the images in it")
        return read_image(path)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return read_image(bytes(image))
    if isinstance(image, np.ndarray):
        return _from_array(image, color_order)
    if isinstance(image, Image.Image):
        _check_pixels(image.height, image.width, f"Pillow image {image.height} x {image.width}")
        return pixels_of(image, "BGR")
    raise TypeError(
        "an image is a path, the bytes of an image file, a NumPy array or a Pillow image, not "
        f"{type(image).__name__}"
        + ("; call .cpu().numpy() and transpose it to (H, W, 3)" if hasattr(image, "numpy") else "")
        + ("; several images are a list, or use stream()" if hasattr(image, "__next__") else "")
    )


def image_name(image: ImageLike) -> str:
    """The path of an image, or an empty string if it has none."""
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else ""


def _from_array(array: NDArray[Any], color_order: str) -> NDArray[np.uint8]:
    shape = " x ".join(map(str, array.shape)) or "scalar"
    if array.ndim == 4:
        raise ValueError(f"got an array {shape}; pass several images as a list of (H, W, 3) arrays")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = "; move the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ValueError(
            f"got an array {shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}"
        )
    if array.dtype.newbyteorder("=") == np.uint16:
        array = to_8_bits(array)
    elif array.dtype != np.uint8:
        raise ValueError(
            f"got an array of {array.dtype}; expected uint8 (0-255) or uint16 (0-65535), so scale "
            "and round it first"
        )
    _check_pixels(array.shape[0], array.shape[1], f"array {shape}")
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    channels = [0, 1, 2] if color_order == "BGR" else [2, 1, 0]
    return np.ascontiguousarray(array[:, :, channels])


def _check_pixels(height: int, width: int, name: str) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"{name}: has no pixels ({height} x {width})")
    if height * width > MAX_IMAGE_PIXELS:
        raise ValueError(
            f"{name}: {height} x {width} pixels are more than the limit of "
            f"{MAX_IMAGE_PIXELS:,}; crop or shrink the image first"
        )
