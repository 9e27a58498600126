"""Contact sheets of correct, false and missed detections.

Green is a correct detection, with the annotated face in thin dark green. Orange is a missed face,
red a false detection with its score, and gray an ignored face. Detections are matched as in the
WIDER FACE protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_d2.evaluation.wider_face.breakdown import FalsePositive, Miss
from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth
from face_d2.evaluation.wider_face.matching import match
from face_d2.evaluation.wider_face.protocol import WiderFaceResult

__all__ = ["SheetItem", "detection_sheet", "false_positive_sheet", "miss_sheet"]

_Image = NDArray[np.uint8]
_Color = tuple[int, int, int]

_FOUND, _MISSED, _FALSE, _IGNORED = (70, 190, 40), (0, 150, 255), (40, 40, 230), (150, 150, 150)
_FACE = (30, 110, 20)
#: Above this number of false detections, their scores are left out, because they cover the image.
_MAX_LABELS = 12
_PAPER, _INK = (250, 250, 250), (60, 60, 60)
_LEGEND = {"found": _FOUND, "missed": _MISSED, "false": _FALSE, "does not count": _IGNORED}
_CAPTION_HEIGHT = 24
_GAP = 8
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class SheetItem(NamedTuple):
    """One image of a sheet. Boxes are XYXY in its pixels.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        faces: (N, 4) faces that are not ignored.
        ignored: (M, 4) ignored faces.
        detections: (D, 5) box and score.
        title: shown above the image.
    """

    image: _Image
    faces: ArrayLike
    ignored: ArrayLike
    detections: ArrayLike
    title: str = ""


def detection_sheet(
    items: Sequence[SheetItem | tuple[_Image, ArrayLike, ArrayLike, ArrayLike]],
    path: str | Path,
    *,
    min_score: float = 0.5,
    columns: int = 4,
    cell: tuple[int, int] = (360, 480),
) -> Path:
    """Draws images with their faces, detections and errors, with counts above each image.

    Args:
        items: the images, in reading order.
        path: file to write, ``.png`` or ``.jpg``.
        min_score: detections below it are left out.
        columns: number of images side by side.
        cell: (height, width) of the space for an image; boxes are drawn after scaling, so boxes of
            small faces stay visible.

    Returns:
        ``path``.

    Raises:
        ValueError: there is no item, or an image is not (H, W, 3) uint8.
        OSError: the file cannot be written.
    """
    cells = [_detection_cell(SheetItem(*item), min_score, cell) for item in items]
    return _write_sheet(cells, columns, path, legend=True)


def false_positive_sheet(
    result: WiderFaceResult, image_root: str | Path, path: str | Path, limit: int = 40
) -> Path:
    """Draws crops around the false positives with the highest scores (red), with faces in green.

    Args:
        result: the result of :func:`face_d2.evaluation.widerface_ap`; its Hard setting is used.
        image_root: folder of the event folders.
        path: file to write, ``.png`` or ``.jpg``.
        limit: number of crops.

    Returns:
        ``path``.

    Raises:
        ValueError: there is no false positive.
        FileNotFoundError: an image is missing.
    """

    def caption(error: FalsePositive) -> str:
        return f"{error.score:.2f} {error.kind}"

    return _error_sheet(result, result.false_positives(limit), caption, _FALSE, image_root, path)


def miss_sheet(
    result: WiderFaceResult, image_root: str | Path, path: str | Path, limit: int = 40
) -> Path:
    """Draws crops around the tallest missed faces (orange), with their attributes.

    See :func:`false_positive_sheet` for arguments, return value and errors.
    """

    def caption(miss: Miss) -> str:
        unusual = [
            f"{value} {name}"
            for name, value in miss.attributes.items()
            if value not in ("clear", "typical", "normal", "none")
        ]
        return ", ".join([f"{miss.box[3]:.0f} px", *unusual])

    return _error_sheet(result, result.misses(limit), caption, _MISSED, image_root, path)


def _detection_cell(item: SheetItem, min_score: float, cell: tuple[int, int]) -> _Image:
    image, scale = _fitted(item.image, cell)
    faces = _rows(item.faces, 4)
    detections = _rows(item.detections, 5)
    detections = detections[detections[:, 4] >= min_score]
    boxes = np.concatenate([faces, _rows(item.ignored, 4)])
    kept = np.arange(len(boxes)) < len(faces)
    found, hit, false = _outcome(boxes, kept, detections)
    for box in boxes[~kept]:
        _draw_box(image, box * scale, _IGNORED, 1)
    for box, is_found in zip(faces, found[kept]):
        _draw_box(image, box * scale, *((_FACE, 1) if is_found else (_MISSED, 2)))
    for row in detections[hit]:
        _draw_box(image, row[:4] * scale, _FOUND, 2)
    for row in detections[false]:
        label = f"{row[4]:.2f}" if false.sum() <= _MAX_LABELS else ""
        _draw_box(image, row[:4] * scale, _FALSE, 2, label)
    caption = f"{int(found[kept].sum())} of {len(faces)} found, {int(false.sum())} false"
    return _captioned(image, cell, f"{item.title}  {caption}".strip())


def _outcome(
    boxes: NDArray[np.float64], kept: NDArray[np.bool_], detections: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """(G,) found faces, (D,) correct detections, (D,) false detections."""
    if not len(boxes):
        none = np.zeros(len(detections), dtype=bool)
        return np.zeros(0, dtype=bool), none, ~none
    ground_truth = WiderFaceGroundTruth(
        names=("image",),
        boxes=_xywh(boxes),
        starts=np.array([0, len(boxes)]),
        kept={},
        attributes=None,
        source="",
        images="",
    )
    matches = match([np.concatenate([_xywh(detections), detections[:, 4:]], axis=1)], ground_truth)
    proposal, hit = matches.outcome(kept)
    return matches.finder >= 0, hit, proposal & ~hit


def _error_sheet(
    result: WiderFaceResult,
    errors: Sequence[FalsePositive] | Sequence[Miss],
    caption: Callable[..., str],
    color: _Color,
    image_root: str | Path,
    path: str | Path,
) -> Path:
    if not errors:
        raise ValueError("there is no such error to show.")
    truth = result.ground_truth
    index_of = {name: index for index, name in enumerate(truth.names)}
    cells = []
    for error in errors:
        file = Path(image_root) / f"{error.image}.jpg"
        image = cv2.imread(str(file)) if file.is_file() else None
        if image is None:
            raise FileNotFoundError(f"{file}: cannot be read; is {image_root} the image folder?")
        faces = truth.boxes[truth.faces_of(index_of[error.image])]
        cells.append(_crop_cell(image, np.array(error.box), faces, caption(error), color))
    return _write_sheet(cells, 8, path, legend=False)


def _crop_cell(
    image: _Image,
    box: NDArray[np.float64],
    faces: NDArray[np.float64],
    caption: str,
    color: _Color,
    side: int = 200,
) -> _Image:
    """Draws the square around a box (XYWH), three times its size, with the faces in it."""
    center, reach = box[:2] + box[2:] / 2, 1.5 * max(box[2:].max(), 12.0)
    scale = side / (2 * reach)
    # Maps the square onto the cell; pixels outside the image have the color of the paper.
    shift = side / 2 - scale * center
    crop = cv2.warpAffine(
        image,
        np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]),
        (side, side),
        flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC,
        borderValue=_PAPER,
    )
    boxes = np.vstack([faces, box])
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]) * scale + np.tile(shift, 2)
    for face in corners[:-1]:
        _draw_box(crop, face, _FOUND, 1)
    _draw_box(crop, corners[-1], color, 2)
    return _captioned(crop, (side, side), caption)


def _fitted(image: _Image, cell: tuple[int, int]) -> tuple[_Image, float]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"expected an image (H, W, 3) of uint8, got {image.shape} of {image.dtype}."
        )
    scale = min(cell[0] / image.shape[0], cell[1] / image.shape[1])
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=method), scale


def _captioned(image: _Image, cell: tuple[int, int], caption: str) -> _Image:
    """Centers the image in its cell, below a caption that is truncated to the width."""
    canvas = np.full((cell[0] + _CAPTION_HEIGHT, cell[1], 3), _PAPER, dtype=np.uint8)
    top = _CAPTION_HEIGHT + (cell[0] - image.shape[0]) // 2
    left = (cell[1] - image.shape[1]) // 2
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    while cv2.getTextSize(caption, _FONT, 0.42, 1)[0][0] > cell[1] - 4:
        caption = caption[:-1]
    cv2.putText(canvas, caption, (2, _CAPTION_HEIGHT - 8), _FONT, 0.42, _INK, 1, cv2.LINE_AA)
    return canvas


def _draw_box(
    image: _Image, box: NDArray[np.float64], color: _Color, thickness: int, label: str = ""
) -> None:
    limit = 4 * max(image.shape)  # OpenCV overflows on distant corners
    x0, y0, x1, y1 = np.rint(box.clip(-limit, limit)).astype(int).tolist()
    cv2.rectangle(image, (x0, y0), (x1, y1), color, thickness, cv2.LINE_AA)
    if label:
        (width, height), _ = cv2.getTextSize(label, _FONT, 0.4, 1)
        x0, y0 = max(min(x0, image.shape[1] - width - 2), 0), max(y0, height + 4)
        cv2.rectangle(image, (x0, y0 - height - 4), (x0 + width + 2, y0), color, cv2.FILLED)
        cv2.putText(image, label, (x0 + 1, y0 - 2), _FONT, 0.4, (255, 255, 255), 1, cv2.LINE_AA)


def _write_sheet(cells: Sequence[_Image], columns: int, path: str | Path, legend: bool) -> Path:
    if not cells:
        raise ValueError("there is no image for the sheet.")
    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    height, width = cells[0].shape[:2]
    header = 34 if legend else 0
    shape = (header + rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3)
    sheet = np.full(shape, _PAPER, dtype=np.uint8)
    for index, image in enumerate(cells):
        top = header + _GAP + index // columns * (height + _GAP)
        left = _GAP + index % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    if legend:
        left = _GAP
        for name, color in _LEGEND.items():
            cv2.rectangle(sheet, (left, 12), (left + 16, 28), color, 2, cv2.LINE_AA)
            cv2.putText(sheet, name, (left + 24, 26), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
            left += 44 + cv2.getTextSize(name, _FONT, 0.5, 1)[0][0]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), sheet):
        raise OSError(f"{path}: could not be written.")
    return path


def _rows(values: ArrayLike, columns: int) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1, columns)


def _xywh(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]], axis=1)
