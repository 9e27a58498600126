"""Data sets with faces in a COCO json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from face_d2.data.catalog import label_records, register_reader
from face_d2.data.labels import Labels
from face_d2.data.labels.assemble import assemble
from face_d2.data.labels.coco import read_coco
from face_d2.data.labels.model import Findings
from face_d2.data.register import is_registered

__all__ = ["load_coco_faces", "register_coco_faces"]


def register_coco_faces(
    name: str, json_file: str | Path, image_root: str | Path, *, category: str = "face"
) -> None:
    """Registers a COCO json under ``name``; repeating the call is no error.

    Files are read when the data set is first used. It is evaluated by WIDER FACE's protocol (Easy,
    Medium and Hard by face height) and in COCO style.

    Args:
        name: catalog name, for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        json_file: a COCO json with images, annotations and categories.
        image_root: folder of the images; file names in the json are relative to it.
        category: name of the category of faces; boxes of other categories are background.

    Raises:
        ValueError: the name belongs to another data set.
    """
    files = {"image_root": str(image_root), "annotation_file": str(json_file)}
    if not is_registered(name, **files):
        register_reader(name, lambda: _read(json_file, image_root, category, name), **files)


def load_coco_faces(
    json_file: str | Path,
    image_root: str | Path,
    *,
    category: str = "face",
    folder: str = "images",
) -> list[dict[str, Any]]:
    """Reads Detectron2's dataset dicts from a COCO json.

    Args:
        json_file, image_root, category: see :func:`register_coco_faces`.
        folder: first part of the ``image_id`` of images directly in ``image_root``.

    Returns:
        See :func:`face_d2.data.catalog.label_records`. The faces of an image that is listed twice
        are merged, boxes of negative size are flipped, and boxes without area are ignored;
        :func:`face_d2.data.labels.read_labels` also counts these cases.

    Raises:
        FileNotFoundError: the json or images are missing; the message has examples.
        ValueError: the file is not such a json or does not have the category; an annotation refers
            to an unknown image or category; a box is not finite; or the size of an image differs
            from the json.
    """
    return label_records(_read(json_file, image_root, category, folder))


def _read(json_file: str | Path, image_root: str | Path, category: str, folder: str) -> Labels:
    findings = Findings()
    raw = read_coco(Path(json_file), Path(image_root), findings)
    return assemble(
        "coco", Path(json_file), Path(image_root), raw, findings, category=category, folder=folder
    )
