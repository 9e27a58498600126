"""Pictures made of results: boxes drawn, faces blurred, faces cut out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_d2.predictor.results import FaceResult
from face_d2.utils.files import replaced_file

__all__ = ["blur_faces", "crop_faces", "draw_faces", "picture_name", "save_image"]

_COLOUR, _LABEL_COLOUR = (70, 190, 40), (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
#: With more faces than this their scores would hide the image.
_MAX_LABELS = 30
#: What a blurred or cut-out box is widened by on each side, as a share of it.
_BLUR_MARGIN, _CROP_MARGIN = 0.15, 0.25
#: A blurred face is what this many gray values along each side tell of it.
_BLUR_CELLS = 5
#: Formats that OpenCV writes everywhere; others are written as PNG.
_WRITABLE = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
_Image = NDArray[np.uint8]


def draw_faces(image: _Image, result: FaceResult) -> _Image:
    """A copy of an image (H, W, 3) with a box round every face, and scores where there is room."""
    drawn = image.copy()
    thickness = max(round(min(image.shape[:2]) / 300), 1)
    size = 0.3 + 0.1 * thickness
    for box, score in reversed(list(result)):  # the best on top
        x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
        cv2.rectangle(drawn, (x1, y1), (x2, y2), _COLOUR, thickness, cv2.LINE_AA)
        (width, height), base = cv2.getTextSize(f"{score:.2f}", _FONT, size, thickness)
        if len(result) > _MAX_LABELS or x2 - x1 < width:
            continue
        left = max(min(x1, image.shape[1] - width - 2), 0)
        bottom = y1 if y1 > height + base else y1 + height + base
        corner = (left + width + 2, bottom - height - base)
        cv2.rectangle(drawn, (left, bottom), corner, _COLOUR, cv2.FILLED)
        place = (left + 1, bottom - base // 2 - 1)
        cv2.putText(
            drawn, f"{score:.2f}", place, _FONT, size, _LABEL_COLOUR, thickness, cv2.LINE_AA
        )
    return drawn


def blur_faces(image: _Image, result: FaceResult) -> _Image:
    """A copy of an image (H, W, 3) with every face made unrecognisable.

    A face and a margin round it become the smooth surface through 5 x 5 mean colours, from which
    nothing else can be had back. What was not found stays visible: use a low score threshold.
    """
    blurred = image.copy()
    for box, _ in result:
        part = _part(image.shape, box, _BLUR_MARGIN)
        region = blurred[part]
        height, width = region.shape[:2]
        cells = (min(_BLUR_CELLS, width), min(_BLUR_CELLS, height))
        means = cv2.resize(region, cells, interpolation=cv2.INTER_AREA)
        blurred[part] = cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR)
    return blurred


def crop_faces(image: _Image, result: FaceResult) -> Iterator[_Image]:
    """The faces with a quarter of their size round them, best score first."""
    for box, _ in result:
        yield image[_part(image.shape, box, _CROP_MARGIN)]


def picture_name(name: str, video: bool = False) -> str:
    """The name of an image's or video's picture, with a suffix that can be written."""
    if video:
        return name if name.lower().endswith(".mp4") else name + ".mp4"
    return name if Path(name).suffix.lower() in _WRITABLE else name + ".png"


def save_image(image: _Image, path: Path) -> Path:
    """Writes an image; nobody ever sees half of it.

    Args:
        image: (H, W, 3) BGR.
        path: where; ".png" is added to a suffix that cannot be written.

    Returns:
        The path written.

    Raises:
        OSError: it cannot be written.
    """
    path = path.with_name(picture_name(path.name))
    try:  # in memory: OpenCV crashes on paths that are not UTF-8
        written, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        written = False
    if not written:
        size = f"{image.shape[0]} x {image.shape[1]}"
        raise OSError(f"{path}: OpenCV cannot write {size} pixels as {path.suffix}")
    with replaced_file(path) as temporary:
        temporary.write_bytes(data)
    return path


def _part(shape: tuple[int, ...], box: NDArray[np.float32], margin: float) -> tuple[slice, slice]:
    """Rows and columns of a box widened by a share of itself, at least one of each."""
    height, width = shape[:2]
    extra = (box[2:] - box[:2]) * margin
    x1, y1 = np.floor(box[:2] - extra).astype(int).clip(0, (width - 1, height - 1)).tolist()
    x2, y2 = np.ceil(box[2:] + extra).astype(int).clip(0, (width, height)).tolist()
    return slice(y1, max(y2, y1 + 1)), slice(x1, max(x2, x1 + 1))
