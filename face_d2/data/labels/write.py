"""Writes labels as COCO json, WIDER FACE text or YOLO's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from face_d2.data.labels.model import LabeledImage, Labels
from face_d2.data.wider_face import write_annotations
from face_d2.utils.files import replaced_folder, write_text

__all__ = ["WRITERS", "coco_content", "write_coco", "write_wider", "write_yolo"]


def write_coco(labels: Labels, target: Path) -> str:
    """Writes a COCO json with one category, "face"; ignored faces have ``iscrowd`` 1.

    File names are relative to ``labels.image_root``. Returns the notation that reads the file.

    Raises:
        ValueError: the size of an image is unknown, but COCO requires it.
    """
    _need_sizes(labels)
    write_text(json.dumps(coco_content(labels)), target)
    return f"coco:{target}:{labels.image_root}"


def coco_content(labels: Labels) -> dict[str, Any]:
    """The content of a COCO json; see :func:`write_coco`."""
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(labels.images, start=1):
        name = labels.relative_name(image)
        pictures.append(
            {"id": number, "file_name": name, "height": image.height, "width": image.width}
        )
        for box, ignored, attributes in image.each_face():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": box,
                    "area": max(box[2], 0) * max(box[3], 0),
                    "iscrowd": int(ignored),
                    **attributes,
                }
            )
    categories = [{"id": 1, "name": "face"}]
    return {"images": pictures, "annotations": annotations, "categories": categories}


def write_wider(labels: Labels, target: Path) -> str:
    """Writes a list in WIDER FACE's format; ignored faces are ``invalid``.

    Names are "folder/file.jpg". If images are directly in the image folder, names start with the
    name of this folder, and its parent becomes the image folder. Returns the notation that reads
    the file.
    """
    names = [labels.relative_name(image) for image in labels.images]
    root = labels.image_root.absolute()
    if any("/" not in name for name in names):
        names = [name if Path(name).is_absolute() else f"{root.name}/{name}" for name in names]
        root = root.parent
    write_annotations(target, (i.as_wider_face(name) for i, name in zip(labels.images, names)))
    return f"wider:{target}:{root}"


def write_yolo(labels: Labels, target: Path) -> str:
    """Writes a YOLO folder: ``labels/*.txt``, links ``images/*`` to the images, and ``data.yaml``.

    Ignored faces are left out, because the format cannot mark them. Only labeled images are linked,
    because an image without a text file is background. Folders called "images" or "labels" inside
    the image folder are left out of the names, because these words join an image and its text file.
    Returns the notation that reads the folder.

    Raises:
        ValueError: the size of an image is unknown, an image is outside ``labels.image_root``, or
            two images would have the same text file.
    """
    _need_sizes(labels)
    outside = [i.file for i in labels.images if Path(labels.relative_name(i)).is_absolute()]
    if outside:
        raise ValueError(
            f"{outside[0]} and {len(outside) - 1} other images are outside {labels.image_root}; "
            "YOLO's format requires all images below one folder. Move them, or write another "
            "format."
        )
    names = [_yolo_name(labels.relative_name(image)) for image in labels.images]
    owners: dict[Path, LabeledImage] = {}
    for image, name in zip(labels.images, names):
        first = owners.setdefault(name.with_suffix(".txt"), image)
        if first is not image:
            raise ValueError(
                f"{first.file} and {image.file} would have the same text file, "
                f"{name.with_suffix('.txt')}; rename one of them, or write another format."
            )
    with replaced_folder(target) as temporary:
        for image, name in zip(labels.images, names):
            file = temporary / "labels" / name.with_suffix(".txt")
            link = temporary / "images" / name
            for path in (file, link):
                path.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(_yolo_rows(image)), encoding="utf-8")
            os.symlink(image.file, link)
        content = {"path": ".", "train": "images", "val": "images", "names": {0: "face"}}
        (temporary / "data.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return f"yolo:{target / 'labels'}:{target / 'images'}"


def _yolo_name(name: str) -> Path:
    *folders, base = name.split("/")
    return Path(*(folder for folder in folders if folder not in ("images", "labels")), base)


def _yolo_rows(image: LabeledImage) -> list[str]:
    size = (image.width, image.height)
    boxes = image.boxes[~image.ignored]
    centers, sides = (boxes[:, :2] + boxes[:, 2:] / 2) / size, boxes[:, 2:] / size
    row = "0 {:.9g} {:.9g} {:.9g} {:.9g}\n"
    return [row.format(*center, *side) for center, side in zip(centers.tolist(), sides.tolist())]


def _need_sizes(labels: Labels) -> None:
    unknown = [image.file for image in labels.images if not image.height]
    if unknown:
        raise ValueError(
            f"{len(unknown)} images cannot be read, so their size is unknown: "
            f"{', '.join(unknown[:3])}. Remove them from the labels, or write WIDER FACE text."
        )


#: Format -> its writer (labels, target), which returns the notation of the written labels.
WRITERS: dict[str, Callable[[Labels, Path], str]] = {
    "coco": write_coco,
    "wider": write_wider,
    "yolo": write_yolo,
}
