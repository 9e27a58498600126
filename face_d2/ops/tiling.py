"""Detection in images that are too large for one pass, with NumPy only.

An image above the pixel limit is divided into overlapping tiles. It is also halved repeatedly until
it fits into one pass, and every halved image is searched too, in tiles if necessary. Letters: O =
``overlap``, the longer side, in pixels, up to which a face must be completely inside a tile; s =
the side of a detection along an axis.

**The rule.** A detection of a tile is kept if, on both axes, its center is farther than
5/8 max(O, s) from every edge of the tile that is not an edge of the image.

*A tile never reports a face that its edge cuts.* The visible part of the face ends at the edge, so
the center of its box is s/2 from the edge, which is less than 5/8 max(O, s). Small errors of the
detector do not matter, because a box that is kept has a distance of at least s/8 from the edge.

*No face up to O is lost.* Neighboring tiles share 11/8 O. The left tile keeps centers up to 5/8 O
before its right edge, and the right tile keeps centers from 5/8 O after its left edge. These ranges
overlap by O/8, so one tile keeps the face even if the positions in the two tiles differ by O/8. A
kept face extends at most O/2 from its center, so it is inside the tile with a margin of at least
O/8.

*Every face is reported once.* If a face is in the ranges of two tiles, both detect the whole face,
and NMS across tiles keeps the better box. Boxes of the same tile do not suppress each other,
because the detector has already applied NMS.

*Larger faces* are kept if a tile contains them and their margin. All others appear in an image that
was halved k times, where they have 1/2^k of their size and the same rule holds; the last of these
images is searched in one pass. A halved image reports only faces of at least 0.8 O in the next
larger image, and only where the larger images have no box, because its boxes are less precise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.nms import best_first, nms

__all__ = ["Detect", "detect_tiled", "min_max_pixels", "tile_boxes"]

#: Maps an image (H, W, channels) to rows (N, 5 or more) of x1, y1, x2, y2, score, other columns.
Detect = Callable[[NDArray[Any]], NDArray[np.floating[Any]]]

#: Minimum distance to inner edges, as a fraction of the face or of the overlap.
_MARGIN = 5 / 8
#: Maximum difference between two tiles' positions of a face, as a fraction of the overlap.
_SLACK = 1 / 8
#: Halved images do not report faces below this fraction of the overlap in the larger image.
_MIN_SHARE = 0.8


def tile_boxes(
    height: int, width: int, tile: int | tuple[int, int], overlap: int, align: int = 1
) -> NDArray[np.int64]:
    """Positions of the tiles of an image.

    The number of tiles is as small as the maximum size allows; the tiles then have equal sizes, as
    small as this number allows.

    Args:
        height, width: size of the image in pixels.
        tile: maximum height and width of a tile.
        overlap: minimum number of pixels that neighboring tiles share.
        align: tiles start at multiples of this. With the largest stride of a detector, its
            locations are the same in a tile as in the whole image.

    Returns:
        (T, 4) XYXY, row by row from the top left. A side that fits into one tile is not divided.

    Raises:
        ValueError: a size is not positive, or a tile is too small to advance by ``align`` pixels.
    """
    tile_height, tile_width = (tile, tile) if isinstance(tile, int) else tile
    for name, value in (("height", height), ("width", width), ("align", align)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    if overlap < 0:
        raise ValueError(f"overlap is {overlap}; expected 0 or more")
    rows = _intervals(height, tile_height, overlap, align)
    columns = _intervals(width, tile_width, overlap, align)
    return np.array([(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns], dtype=np.int64)


def min_max_pixels(overlap: int, align: int = 1) -> int:
    """The minimum of ``max_pixels`` for :func:`detect_tiled`."""
    return (_shared_pixels(overlap) + align) ** 2


def detect_tiled(
    detect: Detect,
    image: NDArray[np.generic],
    *,
    max_pixels: int,
    overlap: int = 256,
    align: int = 1,
    iou_threshold: float = 0.5,
) -> NDArray[np.floating]:
    """Runs a detector on an image of any size, with at most ``max_pixels`` pixels at a time.

    Each face is reported once, even at the border between tiles; the docstring of the module gives
    the rule. With tiles of side t, all passes together process at most about
    4/3 (t / (t - 11/8 overlap))^2 times the pixels of the image.

    Args:
        detect: detects faces in one image. It gets ``image`` itself if the image is within the
            limit, and views of it otherwise.
        image: (H, W, channels), in the channel order that ``detect`` expects.
        max_pixels: maximum number of pixels in one call of ``detect``.
        overlap: faces up to this longer side, in pixels, are always searched at full resolution;
            neighboring tiles share 11/8 of it.
        align: tiles start at multiples of this. With a multiple of the detector's strides, results
            in a tile are the same as in the whole image.
        iou_threshold: boxes of different tiles with a larger IoU are the same face.

    Returns:
        The rows of ``detect``, (N, 5 or more), in pixels of ``image``, best score first; equal
        scores are sorted by box.

    Raises:
        ValueError: the image is empty or not three-dimensional, ``max_pixels`` is too small for
            ``overlap``, or ``detect`` returns rows of another form or a value that is not finite.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(
            f"the image has shape {image.shape}; expected (height, width, channels), none of them 0"
        )
    if overlap < 1:
        raise ValueError(f"overlap is {overlap}; expected at least 1")
    if max_pixels < min_max_pixels(overlap, align):
        raise ValueError(
            f"max_pixels is {max_pixels}; tiles for faces of {overlap} pixels need at least "
            f"{min_max_pixels(overlap, align)}. Raise it, or lower the overlap."
        )
    found: list[NDArray[np.floating]] = []
    tiles: list[NDArray[np.intp]] = []
    levels: list[NDArray[np.intp]] = []
    for level, smaller in enumerate(_pyramid(image, max_pixels)):
        for box in tile_boxes(
            *smaller.shape[:2], _largest_tile(smaller, max_pixels), _shared_pixels(overlap), align
        ):
            x1, y1, x2, y2 = box.tolist()
            rows = _checked(detect(smaller[y1:y2, x1:x2]))
            rows = rows[_clear_of_edges(rows, box, smaller.shape[:2], overlap)]
            if level:
                sides = rows[:, 2:4] - rows[:, :2]
                rows = rows[sides.max(axis=1, initial=0) >= _MIN_SHARE * overlap / 2]
            rows[:, :4] = (rows[:, :4] + np.array([x1, y1, x1, y1])) * 2**level
            found.append(rows)
            tiles.append(np.full(len(rows), len(tiles)))
            levels.append(np.full(len(rows), level))
    rows = np.concatenate(found)
    if len(found) > 1:
        by_score = best_first(rows[:, :4], rows[:, 4])
        finest_first = by_score[np.argsort(np.concatenate(levels)[by_score], kind="stable")]
        rows = rows[nms(rows[:, :4], finest_first, iou_threshold, np.concatenate(tiles))]
        rows[:, 0:4:2] = rows[:, 0:4:2].clip(0, image.shape[1])
        rows[:, 1:4:2] = rows[:, 1:4:2].clip(0, image.shape[0])
    return rows[best_first(rows[:, :4], rows[:, 4])]


def _intervals(length: int, tile: int, overlap: int, align: int) -> list[tuple[int, int]]:
    """Start and end of the tiles along one axis."""
    if length <= tile:
        return [(0, length)]
    longest_step = (tile - overlap) // align * align
    if longest_step < 1:
        raise ValueError(
            f"tiles of {tile} pixels that overlap by {overlap} cannot begin at multiples of "
            f"{align}; the tile must be at least {overlap + align} pixels"
        )
    count = math.ceil((length - overlap) / longest_step)
    step = math.ceil((length - overlap) / (count * align)) * align
    size = step + overlap
    # The last tile is moved back so that it is as large as the others.
    last = math.ceil((length - size) / align) * align
    starts = [min(i * step, last) for i in range(math.ceil((length - overlap) / step))]
    return [(start, min(start + size, length)) for start in starts]


def _shared_pixels(overlap: int) -> int:
    """Pixels that neighboring tiles share, so that a tile contains each face up to ``overlap``."""
    return math.ceil(overlap * (2 * _MARGIN + _SLACK))


def _largest_tile(image: NDArray[np.generic], max_pixels: int) -> tuple[int, int]:
    """Size of a square tile, or less along a side of the image that is shorter."""
    height, width = image.shape[:2]
    side = math.isqrt(max_pixels)
    if min(height, width) >= side:
        return side, side
    return (height, max_pixels // height) if height <= width else (max_pixels // width, width)


def _pyramid(image: NDArray[np.generic], max_pixels: int) -> Iterator[NDArray[np.generic]]:
    """The image, then repeatedly halved images until one is within the limit."""
    yield image
    while image.shape[0] * image.shape[1] > max_pixels:
        image = _half(image)
        yield image


def _half(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """Means of 2 x 2 pixels; the last row or column of an odd side is used twice."""
    whole = np.issubdtype(image.dtype, np.integer)
    wide = np.uint16 if image.dtype == np.uint8 else np.result_type(image.dtype, np.float32)
    height, width = image.shape[:2]
    odd_rows = slice(1, None, 2) if height % 2 == 0 else np.r_[1:height:2, height - 1]
    odd_columns = slice(1, None, 2) if width % 2 == 0 else np.r_[1:width:2, width - 1]
    total = image[::2, ::2].astype(wide)
    total += image[odd_rows, ::2]
    total += image[::2, odd_columns]
    total += image[odd_rows][:, odd_columns]
    mean = (total + 2) // 4 if whole else total / 4
    return mean.astype(image.dtype)


def _clear_of_edges(
    rows: NDArray[np.floating],
    tile: NDArray[np.int64],
    image_size: tuple[int, ...],
    overlap: int,
) -> NDArray[np.bool_]:
    """Applies the rule to detections (N, 4 or more) in pixels of their tile."""
    kept = np.ones(len(rows), dtype=bool)
    for axis, length in enumerate((image_size[1], image_size[0])):
        start, end = int(tile[axis]), int(tile[axis + 2])
        center = (rows[:, axis] + rows[:, axis + 2]) / 2
        margin = _MARGIN * np.maximum(overlap, rows[:, axis + 2] - rows[:, axis])
        if start > 0:
            kept &= center > margin
        if end < length:
            kept &= (end - start) - center > margin
    return kept


def _checked(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """A checked floating-point copy of the rows that a detector returned."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] < 5:
        raise ValueError(
            f"detect returned shape {rows.shape}; expected (N, 5 or more): x1, y1, x2, y2, score"
        )
    if not np.isfinite(rows).all():
        raise ValueError("detect returned a value that is not finite")
    return rows.astype(np.result_type(rows.dtype, np.float32), copy=True)
