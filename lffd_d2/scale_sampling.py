"""Scale-balanced sampling: every training crop is centered near one face, resized to a drawn size.

Each branch of LFFD detects a range of face sizes. To train all branches equally, faces of every
range must be equally frequent, which is not the case in photographs. Therefore a face is drawn,
then a range, and the image is resized so that the face is in this range. Source: the released LFFD
code (arXiv 1904.10633), including its special cases (see the arguments).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from numpy.typing import NDArray

from face_d2.data.image_file import read_shrunk
from face_d2.data.mapper import MAPPERS, face_arrays, ground_truth_instances
from lffd_d2.color_distortion import distort_colors
from lffd_d2.config import variant_from_config

__all__ = ["RangeSampler", "ScaleSamplingMapper"]

logger = logging.getLogger(__name__)

_MIN_STRIP = 100  # minimum width, in pixels, of a strip for a crop without faces


class RangeSampler:
    """Draws the size to which a face is resized.

    Small faces are not enlarged too much: if k is one of the first ``small_face_rules`` ranges and
    a face is not longer than the minimum of range k, the draw is uniform over ranges 0 to k. For
    other faces, the draw is uniform over all ranges. With probability ``beyond_last_prob`` there is
    one more choice: sizes from the maximum of the last range to 1.5 times this maximum.

    ``max_enlarge`` limits the enlargement of every face: ranges whose minimum is more than
    ``max_enlarge`` times the face are not drawn, and neither are larger sizes within a range. The
    first range is always possible; a face that needs a larger factor for it gets its minimum.

    Args:
        face_ranges: minimum and maximum size per range, ascending, in pixels.
        small_face_rules: number of ranges that limit small faces.
        beyond_last_prob: probability of the additional choice.
        max_enlarge: maximum factor by which a face is enlarged, at least 1; 0 is no limit.

    Raises:
        ValueError: the arguments are inconsistent.
    """

    def __init__(
        self,
        face_ranges: Sequence[Sequence[float]],
        small_face_rules: int,
        beyond_last_prob: float,
        max_enlarge: float = 0.0,
    ) -> None:
        if not face_ranges or any(not 0 < low < high for low, high in face_ranges):
            raise ValueError(
                f"face_ranges needs [min, max] pairs of sizes, got {list(face_ranges)}."
            )
        if not 0 <= small_face_rules <= len(face_ranges):
            raise ValueError(
                f"INPUT.SCALE_SAMPLING.SMALL_FACE_RULES is {small_face_rules}; expected 0 to the "
                f"number of ranges, {len(face_ranges)}."
            )
        if not 0 <= beyond_last_prob <= 1:
            raise ValueError(
                f"INPUT.SCALE_SAMPLING.BEYOND_LAST_PROB is {beyond_last_prob}; expected [0, 1]."
            )
        if not (max_enlarge == 0 or max_enlarge >= 1):
            raise ValueError(
                f"INPUT.SCALE_SAMPLING.MAX_ENLARGE is {max_enlarge}; expected a factor of at least "
                "1, or 0 for no limit."
            )
        self.face_ranges = [(float(low), float(high)) for low, high in face_ranges]
        self.small_face_rules = small_face_rules
        self.beyond_last_prob = beyond_last_prob
        self.max_enlarge = max_enlarge

    def __call__(self, size: float) -> tuple[int, int]:
        """Draws the index of a range, and a size in pixels, for a face whose longer side in the
        original image is ``size`` pixels."""
        count = len(self.face_ranges)
        choices = count + int(np.random.rand() < self.beyond_last_prob)
        for k in range(self.small_face_rules):
            if size <= self.face_ranges[k][0]:
                choices = k + 1
                break
        largest = self.face_ranges[-1][1]
        # For each choice, the minimum size and the width of the interval.
        sizes = [(low, int(high - low)) for low, high in self.face_ranges]
        sizes = [*sizes, (largest, int(largest / 2))][:choices]
        if self.max_enlarge:
            limit = self.max_enlarge * size
            within = sum(low <= limit for low, _ in sizes)
            sizes = [(low, min(more, max(int(limit - low), 0))) for low, more in sizes]
            sizes = sizes[: max(within, 1)]
        drawn = np.random.randint(len(sizes))
        smallest, range_above = sizes[drawn]
        return min(drawn, count - 1), int(smallest + np.random.randint(range_above + 1))


@dataclass(frozen=True)
class _View:
    """A resize followed by a square crop; lengths in pixels.

    Attributes:
        scale: resize factor of the original image.
        left, top: corner of the crop in the resized image; may be outside the image.
        visible: x1, y1, x2, y2 of the part of the original that is shown; the rest is black.
    """

    scale: float
    left: float
    top: float
    visible: tuple[float, float, float, float]


class ScaleSamplingMapper:
    """Training mapper that builds square crops by scale-balanced sampling.

    With probability ``negative_ratio``, and if an image has no usable face, the crop shows no face.
    It is taken at a random position from a strip of at least 100 pixels beside all faces, if there
    is one, or from the whole image if it has no faces, and is resized by a random factor.
    Otherwise, a face is drawn uniformly, :class:`RangeSampler` draws a size for it, and the crop is
    centered on the face with a random shift of up to half the stride of the branch. Finally, the
    crop may be flipped and its colors distorted.

    Args:
        sampler: draws sizes.
        strides: strides of the branches in pixels, one per range.
        size: side of the crop in pixels.
        negative_ratio: probability of a crop without faces.
        negative_scales: minimum and maximum resize factor of such a crop.
        flip: "horizontal", "vertical" or "none"; applied with probability 1/2.
        color_distortion: whether to distort colors, see :func:`distort_colors`.
        image_format: "BGR" or "RGB".

    Raises:
        ValueError: an argument is out of its range.
    """

    @configurable
    def __init__(
        self,
        *,
        sampler: RangeSampler,
        strides: Sequence[int],
        size: int,
        negative_ratio: float,
        negative_scales: tuple[float, float],
        flip: str,
        color_distortion: bool,
        image_format: str,
    ) -> None:
        if len(strides) != len(sampler.face_ranges):
            raise ValueError(
                f"strides has {len(strides)} values, face_ranges {len(sampler.face_ranges)}; one "
                "stride per range is needed."
            )
        if (
            size < 1
            or not 0 <= negative_ratio <= 1
            or not 0 < negative_scales[0] <= negative_scales[1]
        ):
            raise ValueError(
                f"INPUT.SCALE_SAMPLING: SIZE {size} must be positive, NEGATIVE_RATIO "
                f"{negative_ratio} in [0, 1], NEGATIVE_SCALES {tuple(negative_scales)} positive "
                "and ascending."
            )
        if flip not in ("horizontal", "vertical", "none"):
            raise ValueError(
                f"INPUT.RANDOM_FLIP is {flip!r}; expected 'horizontal', 'vertical' or 'none'."
            )
        if image_format not in ("BGR", "RGB"):
            raise ValueError(f"INPUT.FORMAT is {image_format!r}; expected 'BGR' or 'RGB'.")
        self.sampler = sampler
        self.strides = list(strides)
        self.size = size
        self.negative_ratio = negative_ratio
        self.negative_scales = (float(negative_scales[0]), float(negative_scales[1]))
        self.flip = flip
        self.color_distortion = color_distortion
        self.image_format = image_format
        self._reported: set[str] = set()

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        if not is_train:
            raise ValueError("scale sampling builds training crops; test with FaceDatasetMapper.")
        node = cfg.INPUT.SCALE_SAMPLING
        branches = variant_from_config(cfg).branches
        return {
            "sampler": RangeSampler(
                [branch.face_range for branch in branches],
                node.SMALL_FACE_RULES,
                node.BEYOND_LAST_PROB,
                node.MAX_ENLARGE,
            ),
            "strides": [branch.rf.stride for branch in branches],
            "size": node.SIZE,
            "negative_ratio": node.NEGATIVE_RATIO,
            "negative_scales": node.NEGATIVE_SCALES,
            "flip": cfg.INPUT.RANDOM_FLIP,
            "color_distortion": node.COLOR_DISTORTION,
            "image_format": cfg.INPUT.FORMAT,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        """Builds one crop. None means that the image cannot be decoded; the loader then takes
        another.

        Returns:
            The dict with ``image``, a (3, size, size) uint8 tensor, and ``instances`` with
            ``gt_boxes`` (XYXY pixels of the crop, not clipped), ``gt_classes`` (all 0) and
            ``gt_ignore``.

        Raises:
            ValueError: the image is not of the annotated size, or the dict does not contain it.
        """
        dataset_dict = dict(dataset_dict)  # the loader keeps the original
        if not {"height", "width"} <= dataset_dict.keys():
            raise ValueError(
                f"the record of {dataset_dict['file_name']} has no height and width; expected "
                "pixels, because the crop is drawn before the image is read."
            )
        boxes, ignore = face_arrays(dataset_dict.pop("annotations", []))
        image_size = (dataset_dict["height"], dataset_dict["width"])
        view = self._draw_view(boxes, ignore, image_size)
        try:
            pixels, shrink = read_shrunk(dataset_dict["file_name"], view.scale)
        except (OSError, ValueError) as error:
            self._report(dataset_dict["file_name"], error)
            return None
        if pixels.shape[:2] != tuple(-(-side // shrink) for side in image_size):
            raise ValueError(
                f"{dataset_dict['file_name']} has {pixels.shape[0]} x {pixels.shape[1]} pixels "
                f"(height x width, decoded at 1/{shrink}), its annotation says {image_size[0]} x "
                f"{image_size[1]}; annotations and images do not belong together."
            )
        crop = _render(pixels, shrink, view, self.size)
        boxes, shown = _place(boxes, view)
        crop, boxes = self._flip(crop, boxes)
        if self.color_distortion:
            crop = distort_colors(crop)
        if self.image_format == "RGB":
            crop = crop[:, :, ::-1]
        dataset_dict["image"] = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        dataset_dict["instances"] = self._instances(boxes, ignore[shown])
        return dataset_dict

    def place_faces(
        self,
        boxes: NDArray[np.float64],
        ignore: NDArray[np.bool_],
        image_size: tuple[int, int],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], tuple[int, int]]:
        """Draws a crop without reading pixels; see :meth:`FaceDatasetMapper.place_faces`."""
        placed, shown = _place(boxes, self._draw_view(boxes, ignore, image_size))
        _, placed = self._flip(np.empty((0, 0, 3), dtype=np.uint8), placed)
        kept = _overlap(placed, (0, 0, self.size, self.size))
        return placed[kept], shown[kept], (self.size, self.size)

    def _draw_view(
        self, boxes: NDArray[np.float64], ignore: NDArray[np.bool_], image_size: tuple[int, int]
    ) -> _View:
        usable = np.flatnonzero(~ignore & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        if len(usable) == 0 or np.random.rand() < self.negative_ratio:
            strip = _draw_strip(boxes, image_size)
            if strip is not None or len(usable) == 0:
                return self._background_view(strip or (0.0, 0.0, image_size[1], image_size[0]))
        return self._face_view(boxes[np.random.choice(usable)], image_size)

    def _face_view(self, box: NDArray[np.float64], image_size: tuple[int, int]) -> _View:
        longer = float((box[2:] - box[:2]).max())
        drawn, target = self.sampler(longer)
        scale = target / longer
        reach = self.strides[drawn] // 2
        jitter = np.random.randint(-reach, reach + 1, size=2)
        corner = (box[:2] + box[2:]) / 2 * scale + jitter - self.size / 2
        return _View(scale, corner[0], corner[1], (0, 0, image_size[1], image_size[0]))

    def _background_view(self, strip: tuple[float, float, float, float]) -> _View:
        scale = np.random.uniform(*self.negative_scales)
        corner = []
        for first, last in (strip[0::2], strip[1::2]):
            room = (last - first) * scale - self.size
            # A strip that is smaller than the crop is centered in it.
            offset = np.random.randint(int(room) + 1) if room >= 0 else room / 2
            corner.append(first * scale + offset)
        return _View(scale, corner[0], corner[1], strip)

    def _flip(
        self, crop: NDArray[np.uint8], boxes: NDArray[np.float64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        if self.flip == "none" or np.random.rand() < 0.5:
            return crop, boxes
        axis = 0 if self.flip == "horizontal" else 1  # of x and y
        flipped = boxes.copy()
        flipped[:, [axis + 2, axis]] = self.size - boxes[:, [axis, axis + 2]]
        return np.flip(crop, 1 - axis), flipped

    def _instances(self, boxes: NDArray[np.float64], ignore: NDArray[np.bool_]) -> Instances:
        kept = _overlap(boxes, (0, 0, self.size, self.size))
        return ground_truth_instances(boxes[kept], ignore[kept], (self.size, self.size))

    def _report(self, path: str, error: Exception) -> None:
        if path not in self._reported:
            self._reported.add(path)
            logger.warning("%s; trained without it.", error)


@MAPPERS.register()
def scale_sampling(cfg: CfgNode) -> ScaleSamplingMapper:
    """The training mapper of ``INPUT.SCALE_SAMPLING``, for the branches of ``MODEL.LFFD``."""
    return ScaleSamplingMapper(cfg, True)


def _place(
    boxes: NDArray[np.float64], view: _View
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The boxes that a view shows, in its pixels, and their indices."""
    shown = np.flatnonzero(_overlap(boxes, view.visible))
    return boxes[shown] * view.scale - [view.left, view.top, view.left, view.top], shown


def _overlap(
    boxes: NDArray[np.float64], area: tuple[float, float, float, float]
) -> NDArray[np.bool_]:
    """(N,) bool: the boxes (N, 4) XYXY that have an area and overlap ``area``."""
    shared = (boxes[:, 2:] > area[:2]) & (boxes[:, :2] < area[2:])
    return (shared & (boxes[:, 2:] > boxes[:, :2])).all(axis=1)


def _draw_strip(
    boxes: NDArray[np.float64], image_size: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """A random strip left, right, above or below all faces; None if all are too narrow."""
    height, width = image_size
    if len(boxes) == 0:
        return 0.0, 0.0, float(width), float(height)
    x1, y1 = np.clip(np.floor(boxes[:, :2].min(axis=0)), 0, (width, height))
    x2, y2 = np.clip(np.ceil(boxes[:, 2:].max(axis=0)), 0, (width, height))
    strips = [(0, 0, x1, height), (x2, 0, width, height), (0, 0, width, y1), (0, y2, width, height)]
    wide = [s for s in strips if min(s[2] - s[0], s[3] - s[1]) >= _MIN_STRIP]
    if not wide:
        return None
    x1, y1, x2, y2 = wide[np.random.randint(len(wide))]
    return float(x1), float(y1), float(x2), float(y2)


def _render(image: NDArray[np.uint8], shrink: int, view: _View, size: int) -> NDArray[np.uint8]:
    """Renders a view of an image with sides divided by ``shrink``, by bilinear interpolation, in
    (size, size, 3), black outside the visible part. Only the pixels of the crop are computed."""
    x1, y1 = (int(v) // shrink for v in view.visible[:2])
    x2, y2 = (-(-int(v) // shrink) for v in view.visible[2:])
    part = image[y1:y2, x1:x2]
    scale = view.scale * shrink
    # Pixel i covers [i, i + 1], so pixel centers are at i + 0.5 in both images.
    matrix = np.array(
        [
            [scale, 0, (x1 + 0.5) * scale - view.left - 0.5],
            [0, scale, (y1 + 0.5) * scale - view.top - 0.5],
        ]
    )
    return cv2.warpAffine(part, matrix, (size, size), flags=cv2.INTER_LINEAR)
