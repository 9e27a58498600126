"""Multi-scale testing of single-stage detectors, which Detectron2's own TTA does not support.

The image is processed at several sizes, one at a time, optionally also mirrored, and the results
are merged. Images above ``TEST.AUG.MAX_PIXELS`` are processed in tiles (``tiling.py``) to limit the
memory.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from face_d2.config import require_keys
from face_d2.data.augmentation import BoundedResize
from face_d2.ops.nms import best_first, nms, vote
from face_d2.ops.tiling import detect_tiled, min_max_pixels
from face_d2.utils.choices import check_choice

__all__ = ["MERGES", "MultiScaleTTA", "SearchScale", "search_scales"]

#: How boxes of a face are merged: the best box, or the mean of all (:func:`face_d2.ops.nms.vote`).
MERGES = ("nms", "vote")

#: Overlap of tiles: faces up to this size, in pixels of the scaled image, are searched at full
#: resolution, larger ones in halved images.
_TILE_OVERLAP = 256
#: A multiple of all strides, so that locations in a tile are the same as in the whole image.
_TILE_ALIGN = 128


@dataclass(frozen=True)
class SearchScale:
    """One test size.

    Attributes:
        factor: resize factor of the original image; used if ``shorter_side`` is 0.
        shorter_side: length of the shorter side in pixels; 0 uses the factor.
        longest_side: maximum of the longer side in pixels, with ``shorter_side``.
        face_range: the faces taken from this size: minimum and maximum of the longer side in pixels
            of the original image, inclusive.

    Raises:
        ValueError: a value is out of its range.
    """

    factor: float = 1.0
    shorter_side: int = 0
    longest_side: int = sys.maxsize
    face_range: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        if not isinstance(self.factor, (int, float)) or not 0 < self.factor < math.inf:
            raise ValueError(
                f"TEST.AUG.SCALES has {self.factor!r}; expected factors of the image's size, more "
                "than 0, for example 0.5."
            )
        if not isinstance(self.shorter_side, int) or self.shorter_side < 0:
            raise ValueError(
                f"TEST.AUG.MIN_SIZES has {self.shorter_side!r}; expected whole pixels, or 0 for "
                "the image as it is."
            )
        if self.longest_side < 1:
            raise ValueError(
                f"TEST.AUG.MAX_SIZE is {self.longest_side}; expected pixels, or 0 for no limit."
            )
        minimum, maximum = self.face_range
        if not 0 <= minimum < maximum:
            raise ValueError(
                f"TEST.AUG.SIZE_RANGES has {[minimum, maximum]}; expected [min, max] with "
                "0 <= min < max, or max 0 for no limit."
            )

    def transform(self, image: NDArray[np.uint8]) -> T.Transform:
        """The transform that resizes an image (H, W, channels) to this size, as the test mapper
        does."""
        if self.shorter_side:
            return BoundedResize(self.shorter_side, self.longest_side).get_transform(image)
        height, width = image.shape[:2]
        new = [max(round(side * self.factor), 1) for side in (height, width)]
        return T.NoOpTransform() if self.factor == 1 else T.ResizeTransform(height, width, *new)


def search_scales(cfg: CfgNode) -> list[SearchScale]:
    """The scales in ``TEST.AUG``.

    Raises:
        ValueError: a value is invalid; the message names the key.
    """
    require_keys(cfg, "TEST.AUG.SCALES")
    aug = cfg.TEST.AUG
    key, sizes = ("SCALES", aug.SCALES) if len(aug.SCALES) else ("MIN_SIZES", aug.MIN_SIZES)
    if not len(sizes):
        raise ValueError("TEST.AUG.MIN_SIZES and TEST.AUG.SCALES are empty; give one a scale.")
    try:
        ranges = np.array(list(aug.SIZE_RANGES) or [(0, 0)] * len(sizes), dtype=np.float64)
    except (TypeError, ValueError):
        ranges = np.empty(0)
    if ranges.shape != (len(sizes), 2):
        raise ValueError(
            f"TEST.AUG.SIZE_RANGES is {aug.SIZE_RANGES}; expected nothing, or one [min, max]"
            f" for each of the {len(sizes)} in TEST.AUG.{key} {list(sizes)}."
        )
    face_ranges = [(low, high or math.inf) for low, high in ranges.tolist()]
    if key == "SCALES":
        return [SearchScale(factor, face_range=r) for factor, r in zip(sizes, face_ranges)]
    longest = aug.MAX_SIZE or sys.maxsize
    return [SearchScale(1.0, side, longest, r) for side, r in zip(sizes, face_ranges)]


class MultiScaleTTA(nn.Module):
    """Runs a detector at several sizes; inputs and outputs are those of the detector.

    Inputs must contain the original image (``INPUT.MIN_SIZE_TEST 0`` for the loader), from which
    all sizes are resized. With one scale and no mirroring, the result is that of the detector.

    Args:
        model: the detector, single-stage with one class; any meta-architecture that returns
            ``pred_boxes`` and ``scores``.
        flip: also process each size mirrored.
        merge: one of ``MERGES``.
        merge_iou: boxes of different passes with a larger IoU are the same face.
        max_pixels: scaled images of more pixels are processed in tiles.
        max_detections: maximum per image.

    Raises:
        ValueError: an argument is out of its range.
    """

    @configurable
    def __init__(
        self,
        *,
        model: nn.Module,
        scales: Sequence[SearchScale],
        flip: bool = True,
        merge: str = "vote",
        merge_iou: float = 0.4,
        max_pixels: int = 4_000_000,
        max_detections: int = 750,
    ) -> None:
        super().__init__()
        if not scales:
            raise ValueError("multi-scale testing needs at least one scale")
        check_choice("TEST.AUG.MERGE", merge, MERGES)
        if not 0 <= merge_iou <= 1:
            raise ValueError(f"TEST.AUG.MERGE_IOU is {merge_iou}; expected 0 to 1.")
        lowest = min_max_pixels(_TILE_OVERLAP, _TILE_ALIGN)
        if max_pixels < lowest:
            raise ValueError(f"TEST.AUG.MAX_PIXELS is {max_pixels}; expected at least {lowest}.")
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.scales = tuple(scales)
        self.flip = flip
        self.merge = merge
        self.merge_iou = merge_iou
        self.max_pixels = max_pixels
        self.max_detections = max_detections
        self.train(self.model.training)

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        aug, scales = cfg.TEST.AUG, search_scales(cfg)
        return {
            "model": model,
            "scales": scales,
            "flip": aug.FLIP,
            "merge": aug.MERGE,
            "merge_iou": aug.MERGE_IOU,
            "max_pixels": aug.MAX_PIXELS,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Detections of every input.

        Args:
            batched_inputs: Detectron2's input dicts: ``image`` (3, H, W), values 0-255, and
                optionally ``height`` and ``width``, which must be those of the image.

        Returns:
            One ``{"instances": Instances}`` per input with ``pred_boxes`` (XYXY, original pixels),
            ``scores`` and ``pred_classes``, best score first.

        Raises:
            ValueError: an image was resized, or the model is in training mode.
        """
        if self.model.training:
            raise ValueError("multi-scale testing of a model in training mode; call .eval() first")
        return [{"instances": self._detect_one(item)} for item in batched_inputs]

    def _detect_one(self, item: dict[str, Any]) -> Instances:
        image = item["image"]
        height, width = size = tuple(image.shape[-2:])
        original = (item.get("height", height), item.get("width", width))
        if size != original:
            raise ValueError(
                f"{item.get('file_name', 'an image')} comes as {height} x {width} pixels but is "
                f"{original[0]} x {original[1]}; multi-scale testing starts from the original: "
                "load it with INPUT.MIN_SIZE_TEST 0"
            )
        if image.dtype != torch.uint8:
            image = image.round().clamp(0, 255).to(torch.uint8)
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
        searches = list(self._searches(pixels))
        rows = np.concatenate(searches)
        search = np.repeat(np.arange(len(searches)), [len(found) for found in searches])
        rows = self._merged(rows, search)[: self.max_detections]
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        found = torch.as_tensor(rows, dtype=torch.float32, device=device)
        boxes = Boxes(found[:, :4])
        boxes.clip(size)
        classes = torch.zeros_like(found[:, 4], dtype=torch.int64)
        instances = Instances(size, pred_boxes=boxes, scores=found[:, 4], pred_classes=classes)
        return instances[boxes.nonempty()]

    def _searches(self, image: NDArray[np.uint8]) -> Iterator[NDArray[np.float64]]:
        """For each scale and orientation, (N, 5) XYXY in pixels of ``image`` and score."""
        height, width = image.shape[:2]
        done = set()
        for scale in self.scales:
            scaled = scale.transform(image).apply_image(image)
            # With the limit MAX_SIZE, several MIN_SIZES can give the same size.
            if (scaled.shape, scale.face_range) in done:
                continue
            done.add((scaled.shape, scale.face_range))
            ratio = np.array([width / scaled.shape[1], height / scaled.shape[0]] * 2)
            for mirrored in (False, True) if self.flip else (False,):
                rows = detect_tiled(
                    self._detect_array,
                    scaled[:, ::-1] if mirrored else scaled,
                    max_pixels=self.max_pixels,
                    overlap=_TILE_OVERLAP,
                    align=_TILE_ALIGN,
                )
                rows[:, :4] *= ratio
                if mirrored:
                    rows[:, [0, 2]] = width - rows[:, [2, 0]]
                longer = (rows[:, 2:4] - rows[:, :2]).max(axis=1, initial=0)
                minimum, maximum = scale.face_range
                yield rows[(longer >= minimum) & (longer <= maximum)]

    def _detect_array(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Runs the detector on one array (H, W, 3)."""
        tensor: Tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        found = self.model([{"image": tensor}])[0]["instances"]
        rows = torch.cat([found.pred_boxes.tensor, found.scores[:, None]], dim=1)
        return rows.double().cpu().numpy()

    def _merged(self, rows: NDArray[np.float64], search: NDArray[np.intp]) -> NDArray[np.float64]:
        boxes, scores = rows[:, :4], rows[:, 4]
        if self.merge == "vote":
            boxes, kept = vote(boxes, scores, self.merge_iou, search)
            return np.column_stack([boxes, scores[kept]])
        return rows[nms(boxes, best_first(boxes, scores), self.merge_iou, search)]
