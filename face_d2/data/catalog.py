"""Data sets by name, path, or notation (``FORMAT:LABELS:IMAGES:CATEGORY``).

A path or notation is registered in Detectron2's catalog under its own text, so that
``DATASETS.TRAIN`` and ``DATASETS.TEST`` accept it like a name.
"""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import difflib
import functools
import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from face_d2.data.labels import FORMATS, Labels, is_notation, read_labels

__all__ = [
    "check_records",
    "label_records",
    "log_labels",
    "register_data_sets",
    "register_labels",
]

logger = logging.getLogger(__name__)


def register_data_sets(names: Iterable[str]) -> None:
    """Registers data sets in Detectron2's catalog if they are not registered yet.

    Labels are registered under their notation. No file is read.

    Raises:
        ValueError: a text is neither a registered name nor a notation of labels.
    """
    for name in names:
        if name in DatasetCatalog.list():
            continue
        if not isinstance(name, str) or not is_notation(name):
            raise ValueError(_unknown(str(name)))
        register_labels(name, name)


def register_labels(name: str, text: str | os.PathLike[str], *, folder: str | None = None) -> None:
    """Registers labels under a name; files are read when the data set is first used.

    The data set is evaluated by WIDER FACE's protocol (Easy, Medium and Hard by face height) and in
    COCO style.

    Args:
        name: catalog name, for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        text, folder: see :func:`face_d2.data.labels.read_labels`.
    """
    register_reader(name, lambda: read_labels(text, folder=folder), labels=os.fspath(text))


def register_reader(name: str, read: Callable[[], Labels], **metadata: Any) -> None:
    """Registers the labels that a function returns; it is called once, when they are needed."""

    @functools.cache
    def labels() -> Labels:
        found = read()
        _log(name, found)
        return found

    DatasetCatalog.register(name, lambda: label_records(labels()))
    MetadataCatalog.get(name).set(
        read_labels=labels,
        thing_classes=["face"],
        evaluator_type="widerface",
        eval_ground_truth=None,
        **metadata,
    )


def log_labels(names: Iterable[str]) -> None:
    """Writes again to the log what was read, for a log that began after the reading."""
    for name in dict.fromkeys(names):
        if read := MetadataCatalog.get(name).get("read_labels"):
            _log(name, read())


def _log(name: str, labels: Labels) -> None:
    logger.info("%s: %s", name, labels.summary())
    for line in labels.findings.lines(labels.faces):
        logger.warning("%s: %s.", name, line)
    if not labels.faces:
        logger.warning("%s: no faces.", labels.source)


def label_records(labels: Labels) -> list[dict[str, Any]]:
    """Converts labels to Detectron2's dataset dicts.

    Returns:
        One dict per image: file_name, height, width, ``image_id`` "folder/name" (the name of its
        prediction file), and annotations with bbox (XYWH pixels), bbox_mode, category_id 0, iscrowd
        (1: neither positive nor background) and, if present, the six attributes of WIDER FACE.
    """
    records = []
    for image in labels.images:
        annotations = [
            {
                "bbox": box,
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 0,
                "iscrowd": int(ignored),
                **attributes,
            }
            for box, ignored, attributes in image.each_face()
        ]
        records.append(
            {
                "file_name": image.file,
                "height": image.height,
                "width": image.width,
                "image_id": image.name,
                "annotations": annotations,
            }
        )
    return records


def check_records(records: Iterable[dict[str, Any]], name: str) -> None:
    """Checks the dataset dicts of a data set that was registered by other code.

    Args:
        name: name of the data set, for error messages.

    Raises:
        ValueError: a dict has no annotations, or the annotations have several categories, which
            would all be taken for faces.
    """
    categories = set()
    for record in records:
        if "annotations" not in record:
            raise ValueError(
                f"data set {name!r}: the record of {record['file_name']} has no 'annotations'; "
                "expected a list, empty for an image without faces."
            )
        categories.update(face.get("category_id", 0) for face in record["annotations"])
    if len(categories) > 1:
        raise ValueError(
            f"data set {name!r} has annotations of the categories {sorted(categories)}, and all "
            "would be taken for faces; expected one category. coco:JSON:IMAGES:CATEGORY, or "
            "face_d2.data.coco.register_coco_faces(name, json, images, category=...), takes one "
            "category of a COCO json."
        )


def _unknown(name: str) -> str:
    known = list(DatasetCatalog.list())
    near = difflib.get_close_matches(name, known) or [
        other for other in known if "face" in other or other == "fddb"
    ]
    return (
        f"data set {name!r} is not registered; did you mean {', '.join(sorted(near))}? Labels of "
        "your own are given by the path of their file or folder, or as FORMAT:LABELS:IMAGES, with "
        f"FORMAT one of {', '.join(FORMATS)} (docs/own_data.md)."
    )
