"""Faces in a COCO json, as a data set that this project trains and evaluates on."""

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
    register_reader(
        name,
        lambda: _read(json_file, image_root, category, folder=name),
        image_root=str(image_root),
        annotation_file=str(json_file),
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
        See :func:`face_d2.data.catalog.label_records`. A picture that is listed twice is one image
        with the faces of both; boxes of negative size are turned round; boxes without area are
        ignored. :func:`face_d2.data.labels.read_labels` also tells how many there were.

    Raises:
        FileNotFoundError: when the json or images are missing; how many, with examples.
        ValueError: when it is no such json, lacks the category, has annotations of an image or
            category that it does not list, or a box that is not finite, or another size than an
            image's own.
    """
    return label_records(_read(json_file, image_root, category, folder))


def _read(json_file: str | Path, image_root: str | Path, category: str, folder: str) -> Labels:
    findings = Findings()
    raw = read_coco(Path(json_file), Path(image_root), findings)
    return assemble(
        "coco",
        Path(json_file),
        Path(image_root),
        raw,
        findings,
        category=category,
        folder=folder,
    )
