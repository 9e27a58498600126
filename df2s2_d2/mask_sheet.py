"""A picture of the predicted masks of the segmentation branch and their targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from df2s2_d2.meta_arch import DF2S2
from df2s2_d2.segmentation import box_mask

__all__ = ["mask_sheet"]

_CELL = 200  # pixels of a tile's longer side
_CAPTION = 18


@torch.no_grad()
def mask_sheet(model: DF2S2, inputs: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Draws each image and its masks of all levels: targets above, predictions below.

    Args:
        model: with a segmentation branch, in evaluation mode.
        inputs: training items with ``image`` (3, H, W) and ``instances``.
        path: PNG to write; it is returned.

    Raises:
        ValueError: when there is no input, or the model was built without the branch.
    """
    if not inputs:
        raise ValueError("there is no image to draw masks for.")
    rows = []
    for item in inputs:
        faces = item["instances"].to(model.device)
        predicted = [mask[0, 0] for mask in model.segment(model.preprocess_image([item]).tensor)]
        on_level = model.levels_of_faces(faces, [tuple(mask.shape) for mask in predicted])
        image = np.ascontiguousarray(item["image"].numpy().transpose(1, 2, 0)[..., :3])
        if model.input_format == "RGB":
            image = image[..., ::-1]
        tile = _tile(image, "image")
        tiles = [np.vstack([tile, np.full_like(tile, 255)])]
        for level, (stride, mask) in enumerate(zip(model.strides, predicted)):
            target = box_mask(faces.gt_boxes.tensor[on_level[:, level]], stride, tuple(mask.shape))
            pair = [
                _tile(_gray(pixels, stride, image.shape[:2]), f"stride {stride}, {name}")
                for pixels, name in ((target.float(), "true"), (mask, "predicted"))
            ]
            tiles.append(np.vstack(pair))
        rows.append(np.hstack(tiles))
    width = max(row.shape[1] for row in rows)
    sheet = [
        np.pad(row, ((0, 8), (0, width - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    if not cv2.imwrite(str(path), np.vstack(sheet)):
        raise OSError(f"{path} cannot be written.")
    return Path(path)


def _gray(mask: Tensor, stride: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A level's mask as an image of the input's size, one square per cell."""
    pixels = (255 * mask).round().byte().cpu().numpy()
    pixels = pixels.repeat(stride, axis=0).repeat(stride, axis=1)[: size[0], : size[1]]
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)


def _tile(image: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    scale = _CELL / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.full((_CELL + _CAPTION, _CELL + 4, 3), 255, np.uint8)
    tile[_CAPTION : _CAPTION + small.shape[0], : small.shape[1]] = small
    cv2.putText(tile, caption, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
    return tile
