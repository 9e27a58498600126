"""Pictures of results: drawn boxes, hidden faces, cropped faces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from face_d2.predictor.copies import copy_format
from face_d2.predictor.results import FaceResult
from face_d2.predictor.sources import Source
from face_d2.utils.files import replaced_file

__all__ = [
    "REDACT_MARGIN",
    "STYLES",
    "crop_faces",
    "draw_faces",
    "hidden_corners",
    "picture_name",
    "redact_faces",
    "save_image",
]

_COLOR, _LABEL_COLOR = (70, 190, 40), (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
#: Above this number of faces, the scores are left out, because they would cover the image.
_MAX_LABELS = 30
#: Margin around hidden and cropped faces on each side, as a fraction of the box.
REDACT_MARGIN, _CROP_MARGIN = 0.15, 0.25
#: Number of mean colors per side that remain of a blurred or pixelated face.
_REDACT_CELLS = 5
#: Ways of hiding a face.
STYLES = ("blur", "pixelate", "mosaic", "box")
_Image = NDArray[np.uint8]


def draw_faces(image: _Image, result: FaceResult) -> _Image:
    """A copy of an image (H, W, 3) with the boxes of all faces, and their scores if legible."""
    drawn = image.copy()
    thickness = max(round(min(image.shape[:2]) / 300), 1)
    size = 0.3 + 0.1 * thickness
    for box, score in reversed(list(result)):  # best score last, so on top
        x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
        cv2.rectangle(drawn, (x1, y1), (x2, y2), _COLOR, thickness, cv2.LINE_AA)
        (width, height), base = cv2.getTextSize(f"{score:.2f}", _FONT, size, thickness)
        if len(result) > _MAX_LABELS or x2 - x1 < width:
            continue
        left = max(min(x1, image.shape[1] - width - 2), 0)
        bottom = y1 if y1 > height + base else y1 + height + base
        corner = (left + width + 2, bottom - height - base)
        cv2.rectangle(drawn, (left, bottom), corner, _COLOR, cv2.FILLED)
        place = (left + 1, bottom - base // 2 - 1)
        cv2.putText(drawn, f"{score:.2f}", place, _FONT, size, _LABEL_COLOR, thickness, cv2.LINE_AA)
    return drawn


def redact_faces(
    image: NDArray[Any],
    boxes: Iterable[NDArray[np.float32]],
    style: str = "blur",
    colors: int = 3,
    margin: float = REDACT_MARGIN,
) -> NDArray[Any]:
    """A copy of an image with every face made unrecognizable.

    Each face is replaced, together with a margin. "blur" interpolates smoothly between 5 x 5 mean
    colors, so nothing else of the face can be recovered; "pixelate" shows the 5 x 5 mean colors as
    flat blocks; "mosaic" shows flat blocks of a grid over the whole picture, each at least a fourth
    of the face wide; "box" is a black box. Faces without a detection stay visible, so use a low
    score threshold.

    Args:
        image: (H, W) or (H, W, C), uint8 or uint16.
        boxes: (N, 4) XYXY in pixels.
        style: one of :data:`STYLES`.
        colors: number of color channels; further channels (transparency) are not changed. With four
            color channels, the last one is the black of CMYK.
        margin: margin on each side, as a fraction of the box.
    """
    hidden = image.copy()
    plain = hidden[..., None] if hidden.ndim == 2 else hidden
    for box in boxes:
        rows, columns = hidden_part(image.shape, box, margin)
        region = plain[rows, columns, :colors]
        if style == "box":
            region[...] = 0
            if colors == 4:
                region[..., 3] = np.iinfo(image.dtype).max
        elif style == "mosaic":
            _mosaic(plain[..., :colors], rows, columns)
        else:
            height, width = region.shape[:2]
            cells = (min(_REDACT_CELLS, width), min(_REDACT_CELLS, height))
            means = cv2.resize(np.ascontiguousarray(region), cells, interpolation=cv2.INTER_AREA)
            way = cv2.INTER_LINEAR if style == "blur" else cv2.INTER_NEAREST
            smooth = cv2.resize(means, (width, height), interpolation=way)
            region[...] = smooth.reshape(region.shape)
    return hidden


def _mosaic(image: NDArray[Any], rows: slice, columns: slice) -> None:
    """Replaces a part of an image by the mean colors of the grid's cells inside the part."""
    longest = max(rows.stop - rows.start, columns.stop - columns.start)
    cell = max(-(-longest // 4), 1)
    for y in range(rows.start // cell * cell, rows.stop, cell):
        for x in range(columns.start // cell * cell, columns.stop, cell):
            block = image[
                max(y, rows.start) : min(y + cell, rows.stop),
                max(x, columns.start) : min(x + cell, columns.stop),
            ]
            block[...] = block.mean(axis=(0, 1))


def crop_faces(image: _Image, result: FaceResult) -> Iterator[_Image]:
    """The faces with a margin of a quarter of their size, best score first."""
    for box, _ in result:
        yield image[hidden_part(image.shape, box, _CROP_MARGIN)]


def picture_name(source: Source) -> str:
    """File name of the picture of an image or video, with the suffix of the written format."""
    if source.kind != "image":
        return source.name if source.name.lower().endswith(".mp4") else source.name + ".mp4"
    return source.name if copy_format(source.format) == source.format else source.name + ".png"


def save_image(image: _Image, path: Path) -> None:
    """Writes an image (H, W, 3), BGR, atomically, in the format of the path's suffix.

    Raises:
        OSError: the image cannot be written.
    """
    try:  # in memory: OpenCV crashes on paths that are not UTF-8
        written, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        written = False
    if not written:
        size = f"{image.shape[0]} x {image.shape[1]}"
        raise OSError(f"{path}: OpenCV cannot write {size} pixels as {path.suffix or 'an image'}")
    with replaced_file(path) as temporary:
        temporary.write_bytes(data)


def hidden_part(
    shape: tuple[int, ...], box: NDArray[np.float32], margin: float
) -> tuple[slice, slice]:
    """Rows and columns of a box with a relative margin, at least one of each."""
    x1, y1, x2, y2 = hidden_corners(shape, box[None], margin)[0].tolist()
    return slice(y1, y2), slice(x1, x2)


def hidden_corners(
    shape: tuple[int, ...], boxes: NDArray[np.float32], margin: float = REDACT_MARGIN
) -> NDArray[np.int64]:
    """The pixels of a picture that are hidden with each box.

    Args:
        shape: (height, width, ...) of the picture.
        boxes: (N, 4) XYXY.
        margin: margin on each side, as a fraction of the box.

    Returns:
        (N, 4) integer XYXY, the ends exclusive; at least one pixel.
    """
    height, width = shape[:2]
    extra = (boxes[:, 2:] - boxes[:, :2]) * margin
    low = np.floor(boxes[:, :2] - extra).astype(np.int64).clip(0, (width - 1, height - 1))
    high = np.ceil(boxes[:, 2:] + extra).astype(np.int64).clip(0, (width, height))
    return np.hstack([low, np.maximum(high, low + 1)])
