"""Faces in a COCO json, as a data set that this project trains and evaluates on."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path, PurePosixPath
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from face_d2.data.image_size import UNREADABLE_SIZE, image_sizes
from face_d2.data.register import is_registered

__all__ = ["load_coco_faces", "register_coco_faces"]

#: Pixels by which a box may reach beyond its image without a word: rounding.
_OUTSIDE = 2

logger = logging.getLogger(__name__)


def register_coco_faces(
    name: str, json_file: str | Path, image_root: str | Path, *, category: str = "face"
) -> None:
    """Registers a COCO json under ``name``; the same one twice is no error.

    Nothing is read until the data set is used. It is evaluated by WIDER FACE's protocol (Easy,
    Medium and Hard by face height) and in COCO style.

    Args:
        name: catalog name, for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        json_file: images, annotations and categories in COCO's form.
        image_root: what the file names in it are relative to.
        category: name of the category whose boxes are faces; what others mark is background.

    Raises:
        ValueError: when the name is another data set's.
    """
    if is_registered(name, image_root=str(image_root), annotation_file=str(json_file)):
        return
    DatasetCatalog.register(
        name, lambda: load_coco_faces(json_file, image_root, category=category, folder=name)
    )
    MetadataCatalog.get(name).set(
        thing_classes=["face"],
        evaluator_type="widerface",
        image_root=str(image_root),
        annotation_file=str(json_file),
        eval_ground_truth=None,
    )


def load_coco_faces(
    json_file: str | Path,
    image_root: str | Path,
    *,
    category: str = "face",
    folder: str = "images",
) -> list[dict[str, Any]]:
    """Reads Detectron2's dataset dicts from a COCO json.

    Args:
        json_file: images, annotations and categories in COCO's form.
        image_root: what the file names in it are relative to.
        category: name of the category whose boxes are faces.
        folder: first part of the ``image_id`` of an image that lies in ``image_root`` itself.

    Returns:
        One dict per image: file_name, height, width, ``image_id`` "folder/name" (by which
        prediction files go), and annotations with bbox (XYWH pixels), bbox_mode, category_id 0 and
        iscrowd (1: neither positive nor background; boxes without area too).

    Raises:
        FileNotFoundError: when the file is missing.
        ValueError: when it is no such json, lacks the category, speaks of an image it does not
            list, lists two images that would share an ``image_id``, has a box that is not finite,
            or another size than an image's own.
    """
    path = Path(json_file)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images, annotations = list(content["images"]), list(content["annotations"])
        wanted = [c["id"] for c in content["categories"] if c["name"] == category]
        names = [c["name"] for c in content["categories"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: no COCO json of images, annotations and categories ({error!r})."
        ) from error
    if not wanted:
        raise ValueError(f"{path}: no category {category!r}; there are {names}.")
    records: dict[Any, dict[str, Any]] = {}
    owners: dict[str, str] = {}
    for image in images:
        record = _record(path, Path(image_root), image, folder)
        other = owners.setdefault(record["image_id"], image["file_name"])
        if image["id"] in records or other != image["file_name"]:
            raise ValueError(
                f"{path}: {image['file_name']!r} and another image share an id or, but for the "
                "suffix, a name; give each its own."
            )
        records[image["id"]] = record
    for annotation in annotations:
        if annotation.get("category_id") in wanted:
            face = _face(path, annotation, records)
            records[annotation["image_id"]]["annotations"].append(face)
    found = list(records.values())
    _check_sizes(path, found)
    _warn_of_odd_boxes(path, found)
    return found


def _check_sizes(path: Path, records: list[dict[str, Any]]) -> None:
    """Sizes that are not the images' own would stop the first evaluation."""
    there = [record for record in records if Path(record["file_name"]).is_file()]
    sizes = image_sizes("", [record["file_name"] for record in there])
    for record, size in zip(there, sizes):
        said = (record["height"], record["width"])
        if size not in (said, UNREADABLE_SIZE):
            raise ValueError(
                f"{path}: {record['file_name']} is {size[1]} x {size[0]} pixels as it is shown, "
                f"the json says {said[1]} x {said[0]}."
            )


def _warn_of_odd_boxes(path: Path, records: list[dict[str, Any]]) -> None:
    outside = total = 0
    for record in records:
        for face in record["annotations"]:
            x, y, w, h = face["bbox"]
            right, bottom = record["width"] + _OUTSIDE, record["height"] + _OUTSIDE
            outside += min(x, y) < -_OUTSIDE or x + w > right or y + h > bottom
            total += 1
    if not total:
        logger.warning("%s: no faces.", path)
    if outside:
        logger.warning(
            "%s: %d of %d boxes reach beyond their image; are they [x, y, width, height]?",
            path,
            outside,
            total,
        )


def _record(path: Path, image_root: Path, image: Any, folder: str) -> dict[str, Any]:
    try:
        name = PurePosixPath(image["file_name"])
        height, width = int(image["height"]), int(image["width"])
        image["id"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: image {image!r} needs id, file_name, height and width ({error!r})."
        ) from error
    event = "--".join(name.parts[:-1]) or folder
    return {
        "file_name": str((image_root / name).absolute()),
        "height": height,
        "width": width,
        "image_id": f"{event}/{name.stem}",
        "annotations": [],
    }


def _face(path: Path, annotation: Any, records: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    if annotation.get("image_id") not in records:
        raise ValueError(f"{path}: annotation {annotation!r} is of an image that is not listed.")
    try:
        x, y, w, h = (float(side) for side in annotation["bbox"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: annotation {annotation!r} needs bbox [x, y, width, height]."
        ) from error
    if not all(map(math.isfinite, (x, y, w, h))):
        raise ValueError(f"{path}: annotation {annotation!r}: expected finite numbers.")
    ignored = bool(annotation.get("iscrowd", 0)) or min(w, h) <= 0
    return {
        "bbox": [x, y, w, h],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": int(ignored),
    }
