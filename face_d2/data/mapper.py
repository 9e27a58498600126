"""Mappers: convert a dataset dict to the input of a meta-architecture."""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import logging
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.registry import Registry
from numpy.typing import NDArray

from face_d2.config import require_keys
from face_d2.data.augmentation import BoundedResize, PhotometricDistortion, SquareFaceCrop
from face_d2.data.image_file import read_image
from face_d2.utils.choices import check_choice

__all__ = [
    "MAPPERS",
    "UNREADABLE",
    "FaceDatasetMapper",
    "build_train_mapper",
    "face_arrays",
    "face_instances",
    "ground_truth_instances",
]

#: Functions that build a training mapper from a config, by their name for ``INPUT.MAPPER``.
MAPPERS = Registry("MAPPER")

#: Key of evaluation items whose image could not be decoded; the value is the error message.
UNREADABLE = "unreadable"

logger = logging.getLogger(__name__)

_STAND_IN_SIDE = 64  # side of the black image that replaces an undecodable one, in pixels


class FaceDatasetMapper:
    """Reads an image, augments it, and turns its faces into ``Instances``.

    Faces marked ``iscrowd``, which Detectron2's own mapper drops, are kept with a flag, so that a
    detector can leave them out of its loss. A training image that cannot be decoded is reported
    once and replaced by another image. Evaluation must not leave out images, so a small black image
    with the key ``UNREADABLE`` replaces an undecodable one; the evaluators of this project count it
    as an image without detections and name it in their results.

    Args:
        is_train: use annotations, and replace damaged images by other ones.
        augmentations: applied in order.
        image_format: channel order of the output, "BGR" or "RGB".
        ignore_visible: see :func:`face_instances`.

    Raises:
        ValueError: ``image_format`` is unknown, or ``ignore_visible`` is out of range.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: list[T.Augmentation],
        image_format: str,
        ignore_visible: float = 1.0,
    ) -> None:
        if image_format not in ("BGR", "RGB"):
            raise ValueError(f"INPUT.FORMAT is {image_format!r}; expected 'BGR' or 'RGB'.")
        if not 0 < ignore_visible <= 1:
            raise ValueError(
                f"INPUT.FACE_CROP.IGNORE_VISIBLE is {ignore_visible}; expected a fraction in "
                "(0, 1]; 1 ignores no face."
            )
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.ignore_visible = ignore_visible
        self._reported: set[str] = set()

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        if is_train:  # a test needs Detectron2's keys only
            require_keys(cfg, "INPUT.FACE_CROP")
        return {
            "is_train": is_train,
            "augmentations": _train_augmentations(cfg) if is_train else _test_augmentations(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "ignore_visible": cfg.INPUT.FACE_CROP.IGNORE_VISIBLE if is_train else 1.0,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        """Maps one dataset dict; the loader replaces a result of None by another image.

        Returns:
            The dict with ``image`` (3, H, W) and, in training, ``instances`` as
            :func:`face_instances` returns them. If the image cannot be decoded, the result is None
            in training; in evaluation it is an item with the key ``UNREADABLE``, whose ``height``
            and ``width`` are those of the black image.

        Raises:
            detectron2's SizeMismatchError: the size of the image differs from the annotation.
        """
        dataset_dict = dict(dataset_dict)  # the loader keeps the original
        try:
            image = read_image(dataset_dict["file_name"], self.image_format)
        except (OSError, ValueError) as error:
            self._report(dataset_dict["file_name"], error)
            return None if self.is_train else _stand_in(dataset_dict, error)
        detection_utils.check_image_size(dataset_dict, image)

        annotations = dataset_dict.pop("annotations", [])
        boxes, ignore = face_arrays(annotations)
        sample = T.AugInput(image, boxes=boxes)
        self.augmentations(sample)
        pixels = np.ascontiguousarray(sample.image.transpose(2, 0, 1))
        dataset_dict["image"] = torch.as_tensor(pixels)
        if self.is_train:
            dataset_dict["instances"] = face_instances(
                sample.boxes,
                ignore,
                sample.image.shape[:2],
                clip=True,
                ignore_visible=self.ignore_visible,
            )
        return dataset_dict

    def _report(self, path: str, error: Exception) -> None:
        if path not in self._reported:
            self._reported.add(path)
            done = "trained without it" if self.is_train else "it counts as zero detections"
            logger.warning("%s; %s.", error, done)

    def place_faces(
        self,
        boxes: NDArray[np.float64],
        ignore: NDArray[np.bool_],
        image_size: tuple[int, int],
    ) -> tuple[NDArray[np.floating], NDArray[np.int64], tuple[int, int]]:
        """Computes the boxes of an augmented image without reading its pixels.

        Args:
            boxes: (N, 4) XYXY, pixels of the image.
            ignore: (N,) not used by this mapper, but by others with the same method.
            image_size: (height, width) of the image.

        Returns:
            (K, 4) XYXY boxes of the faces that are kept, (K,) their indices, and (height, width) of
            the output. In evaluation, every face with an area is kept, and none is clipped.
        """
        sample = T.AugInput(np.zeros((*image_size, 3), dtype=np.uint8), boxes=boxes)
        self.augmentations(sample)
        height, width = sample.image.shape[:2]
        placed = sample.boxes
        if self.is_train:
            kept = _faces_inside(placed, (height, width))
            placed = placed.clip(0, (width, height, width, height))
        else:
            kept = _with_area(placed)
        return placed[kept], np.flatnonzero(kept), (height, width)


@MAPPERS.register()
def face_crop(cfg: CfgNode) -> FaceDatasetMapper:
    """The training mapper of square crops, see :class:`SquareFaceCrop`."""
    return FaceDatasetMapper(cfg, True)


def build_train_mapper(cfg: CfgNode) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    """Builds the training mapper ``INPUT.MAPPER``.

    Raises:
        ValueError: there is no mapper of this name.
    """
    require_keys(cfg, "INPUT.MAPPER")
    if cfg.INPUT.CROP.ENABLED:
        raise ValueError(
            "INPUT.CROP.ENABLED is True, but the training mappers of faces do not use INPUT.CROP; "
            "set it to False. INPUT.FACE_CROP (DF2S2) and INPUT.SCALE_SAMPLING (LFFD) set their "
            "crops."
        )
    check_choice("INPUT.MAPPER", cfg.INPUT.MAPPER, sorted(name for name, _ in MAPPERS))
    return MAPPERS.get(cfg.INPUT.MAPPER)(cfg)


def face_arrays(
    annotations: list[dict[str, Any]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N, 4) XYXY boxes and the (N,) mask of ignored faces of Detectron2 annotations."""
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    modes = np.array([a["bbox_mode"] for a in annotations])
    for mode in set(modes.tolist()):  # usually one mode; converting box by box takes a millisecond
        rows = modes == mode
        boxes[rows] = BoxMode.convert(boxes[rows], BoxMode(mode), BoxMode.XYXY_ABS)
    return boxes, np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool)


def face_instances(
    boxes: NDArray[np.floating],
    ignore: NDArray[np.bool_],
    image_size: tuple[int, int],
    *,
    clip: bool,
    ignore_visible: float = 1.0,
) -> Instances:
    """Converts the faces of an augmented image to ``Instances``.

    A face is kept if its center is in the image (S3FD's rule). A face whose center is outside is
    kept as an ignored face if enough of it is visible. Boxes without area are dropped.

    Args:
        boxes: (N, 4) XYXY in the pixels of the augmented image.
        ignore: (N,) faces that are neither positive nor background.
        image_size: (height, width) of the augmented image.
        clip: clip the boxes to the image.
        ignore_visible: minimum visible fraction of a face whose center is outside; 1 drops all such
            faces.

    Returns:
        The faces that are kept; see :func:`ground_truth_instances`.
    """
    inside = _faces_inside(boxes, image_size)
    kept = inside | (_visible_share(boxes, image_size) >= ignore_visible)
    instances = ground_truth_instances(boxes[kept], (ignore | ~inside)[kept], image_size)
    if clip:
        instances.gt_boxes.clip(image_size)
    return instances


def ground_truth_instances(
    boxes: NDArray[np.floating] | torch.Tensor,
    ignore: NDArray[np.bool_] | torch.Tensor,
    image_size: tuple[int, int],
) -> Instances:
    """Instances with ``gt_boxes`` (float32), ``gt_classes`` (all 0) and ``gt_ignore`` (bool)."""
    instances = Instances(image_size)
    instances.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    instances.gt_ignore = torch.as_tensor(ignore)
    return instances


def _stand_in(dataset_dict: dict[str, Any], error: Exception) -> dict[str, Any]:
    """The evaluation item of an image that cannot be decoded."""
    image = torch.zeros(3, _STAND_IN_SIDE, _STAND_IN_SIDE, dtype=torch.uint8)
    height, width = image.shape[1:]
    known = {key: value for key, value in dataset_dict.items() if key != "annotations"}
    return {**known, "image": image, "height": height, "width": width, UNREADABLE: str(error)}


def _faces_inside(boxes: NDArray[np.floating], image_size: tuple[int, int]) -> NDArray[np.bool_]:
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centers >= 0) & (centers < image_size[::-1])).all(axis=1)
    return inside & _with_area(boxes)


def _visible_share(boxes: NDArray[np.floating], image_size: tuple[int, int]) -> NDArray[np.float64]:
    """(N,) fraction of each box's area that is in the image; 0 for a box without area."""
    height, width = image_size
    seen = boxes.clip(0, (width, height, width, height))
    seen_area, area = ((b[:, 2:] - b[:, :2]).clip(min=0).prod(axis=1) for b in (seen, boxes))
    return np.divide(seen_area, area, out=np.zeros(len(boxes)), where=area > 0)


def _with_area(boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    return (boxes[:, 2:] > boxes[:, :2]).all(axis=1)


def _train_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    crop, flip = cfg.INPUT.FACE_CROP, cfg.INPUT.RANDOM_FLIP
    augmentations: list[T.Augmentation] = []
    if crop.ENABLED:
        square = SquareFaceCrop(
            size=crop.SIZE,
            min_scale=crop.MIN_SCALE,
            attempts=crop.ATTEMPTS,
            zoom=crop.ZOOM,
            max_scale=crop.MAX_SCALE,
            fill=cfg.MODEL.PIXEL_MEAN,
        )
        augmentations.append(square)
    else:
        sides = (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN or sys.maxsize)
        augmentations.append(BoundedResize(*sides, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING))
    if crop.COLOR_DISTORTION:
        augmentations.append(PhotometricDistortion(cfg.INPUT.FORMAT))
    if flip != "none":
        horizontal, vertical = flip == "horizontal", flip == "vertical"
        augmentations.append(T.RandomFlip(horizontal=horizontal, vertical=vertical))
    return augmentations


def _test_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    if cfg.INPUT.MIN_SIZE_TEST == 0:  # no resize
        return []
    longest = cfg.INPUT.MAX_SIZE_TEST or sys.maxsize
    return [BoundedResize(cfg.INPUT.MIN_SIZE_TEST, longest)]
