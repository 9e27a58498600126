"""Finding faces in images too large for one pass, without seams. NumPy only.

An image above the cap is cut into overlapping tiles, and halved again and again until it fits; the
halved images are searched as well, in tiles where they need it. Letters: O = ``overlap``, the
largest face, in pixels of its longer side, that must fit into a tile whole; s = the side of a
detection along an axis.

**The rule.** A tile's detection stays when, on both axes, its centre is further than
5/8 max(O, s) from every edge of the tile that is not an edge of the image.

*A face cut by a tile's edge is never found there.* What the tile sees of it ends at the edge, so
its centre is s/2 from the edge, less than 5/8 max(O, s). A detector that sees a little too little
or too much of the piece changes nothing: a box that stays keeps s/8 off the edge.

*No face up to O is lost.* Neighbours share 11/8 O. The one keeps centres up to 5/8 O before its
right edge, the other from 5/8 O behind its left edge: these ranges overlap by O/8, so that two
tiles may disagree by that much about where a face is and one still keeps it. A face whose centre is
kept reaches O/2 from it and so lies within the tile, with O/8 or more of its surroundings.

*Found once.* A face in the ranges of both is found whole by both, and suppression across tiles
keeps the better answer. Boxes of one tile never suppress each other: the detector has done that.

*Larger faces* stay when a tile holds them and their margin. All others appear in an image halved k
times, where they have 1/2^k of their size and the same holds; the last of these images is searched
in one piece. Halved images answer for faces of at least 0.8 O of the previous ones and only
where those have no box, since their boxes are coarser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.nms import best_first, nms

__all__ = ["Detect", "detect_tiled", "least_max_pixels", "tile_boxes"]

#: Image (H, W, channels) to rows (N, 5 or more): x1, y1, x2, y2, score; what follows is carried on.
Detect = Callable[[NDArray[np.generic]], NDArray[np.floating]]

#: Distance kept from inner edges, as a share of the face or of the overlap.
_MARGIN = 5 / 8
#: How far two tiles may disagree about a face's place, as a share of the overlap.
_SLACK = 1 / 8
#: Halved images leave faces below this share of the overlap to the image they were made from.
_LEAST_SHARE = 0.8


def tile_boxes(
    height: int, width: int, tile: int | tuple[int, int], overlap: int, align: int = 1
) -> NDArray[np.int64]:
    """Where the tiles of an image are.

    As few tiles as the largest size allows, then as small and equal as that number allows.

    Args:
        height, width: of the image, in pixels.
        tile: largest height and width of a tile.
        overlap: pixels that neighbouring tiles share at least.
        align: tiles begin at multiples of this. With a detector's largest stride its locations are
            the same in a tile as in the whole image.

    Returns:
        (T, 4) XYXY, row by row from the top left. A side that fits into one tile is not cut.

    Raises:
        ValueError: a size is not positive, or a tile is too small to get on by ``align`` pixels.
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


def least_max_pixels(overlap: int, align: int = 1) -> int:
    """The smallest ``max_pixels`` that :func:`detect_tiled` can work with."""
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
    """Runs a detector on an image of any size, never on more than ``max_pixels`` at a time.

    Each face is found once, whether a seam runs through it or not; the rule is at the head of this
    file. With tiles of side t, all passes together see at most about
    4/3 (t / (t - 11/8 overlap))^2 times the image's pixels.

    Args:
        detect: finds faces in one image; gets ``image`` itself when that is within the cap, and
            views of it otherwise.
        image: (H, W, channels), of the channel order that ``detect`` expects.
        max_pixels: most pixels of one call of ``detect``.
        overlap: longer side in pixels up to which faces are searched at full resolution for sure;
            neighbouring tiles share 11/8 of it.
        align: tiles begin at multiples of this; a multiple of the detector's strides gives tiles
            the answers of the whole image.
        iou_threshold: boxes of different tiles that overlap by more than this are one face.

    Returns:
        What ``detect`` returns, (N, 5 or more), in pixels of ``image``, best score first, equal
        scores by box.

    Raises:
        ValueError: the image is not three-dimensional or empty, ``max_pixels`` is too small for
            ``overlap``, or ``detect`` returns something else than such rows or a value that is not
            finite.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(
            f"the image has shape {image.shape}; expected (height, width, channels), none of them 0"
        )
    if overlap < 1:
        raise ValueError(f"overlap is {overlap}; expected at least 1")
    if max_pixels < least_max_pixels(overlap, align):
        raise ValueError(
            f"max_pixels is {max_pixels}; tiles for faces of {overlap} pixels need at least "
            f"{least_max_pixels(overlap, align)}. Raise it, or lower the overlap."
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
                rows = rows[sides.max(axis=1, initial=0) >= _LEAST_SHARE * overlap / 2]
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
    # The last tile goes back to be as large as the others, not a strip.
    last = math.ceil((length - size) / align) * align
    starts = [min(i * step, last) for i in range(math.ceil((length - overlap) / step))]
    return [(start, min(start + size, length)) for start in starts]


def _shared_pixels(overlap: int) -> int:
    """What neighbouring tiles share, so that faces up to ``overlap`` are seen whole."""
    return math.ceil(overlap * (2 * _MARGIN + _SLACK))


def _largest_tile(image: NDArray[np.generic], max_pixels: int) -> tuple[int, int]:
    """Squares, or the whole of a side that is shorter than their side."""
    height, width = image.shape[:2]
    side = math.isqrt(max_pixels)
    if min(height, width) >= side:
        return side, side
    return (height, max_pixels // height) if height <= width else (max_pixels // width, width)


def _pyramid(image: NDArray[np.generic], max_pixels: int) -> Iterator[NDArray[np.generic]]:
    """The image, then halves of it until one is within the cap."""
    yield image
    while image.shape[0] * image.shape[1] > max_pixels:
        image = _half(image)
        yield image


def _half(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """Means of 2 x 2 pixels; an odd last row or column counts twice."""
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
    """The rule, for detections (N, 4 or more) in pixels of their tile."""
    kept = np.ones(len(rows), dtype=bool)
    for axis, length in enumerate((image_size[1], image_size[0])):
        start, end = int(tile[axis]), int(tile[axis + 2])
        centre = (rows[:, axis] + rows[:, axis + 2]) / 2
        margin = _MARGIN * np.maximum(overlap, rows[:, axis + 2] - rows[:, axis])
        if start > 0:
            kept &= centre > margin
        if end < length:
            kept &= (end - start) - centre > margin
    return kept


def _checked(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """A copy of what a detector returned, in floating point."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] < 5:
        raise ValueError(
            f"detect returned shape {rows.shape}; expected (N, 5 or more): x1, y1, x2, y2, score"
        )
    if not np.isfinite(rows).all():
        raise ValueError("detect returned a value that is not finite")
    return rows.astype(np.result_type(rows.dtype, np.float32), copy=True)
