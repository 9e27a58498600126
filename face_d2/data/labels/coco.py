"""Labels in a COCO json."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from face_d2.data.labels.files import read_json
from face_d2.data.labels.model import Findings, RawFace, RawImage, RawLabels, finite, stated_size
from face_d2.data.labels.text_forms import roots_beside
from face_d2.data.wider_face import ATTRIBUTES

__all__ = ["read_coco"]

_WHOLE_NUMBER = re.compile(r"(-?[0-9]{1,20})(\.0)?")


def read_coco(path: Path, images: Path | None, findings: Findings) -> RawLabels:
    """Reads images, annotations and categories.

    Ids that are numbers are compared as numbers, even if one of them is written as a string. A
    missing or null ``iscrowd`` or ``ignore`` is 0.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not COCO json, two images have the same id, or an annotation refers
            to an image or category that is not listed.
    """
    content = read_json(path)
    try:
        pictures, annotations = list(content["images"]), list(content["annotations"])
        categories = {_id(c["id"]): str(c["name"]) for c in content["categories"]}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected COCO json with images, annotations and categories ({error!r})."
        ) from None
    listed: dict[Any, RawImage] = {}
    again = []
    for picture in pictures:
        image, key = _image(path, picture)
        if key in listed:
            if listed[key].name != image.name:
                raise ValueError(
                    f"{path}: {listed[key].name!r} and {image.name!r} share an id, "
                    f"{picture['id']!r}; give each its own."
                )
            again.append(image)
        else:
            listed[key] = image
    _check_categories(path, annotations, categories)
    for annotation in annotations:
        key = _id(annotation.get("image_id"))
        if key not in listed:
            raise ValueError(
                f"{path}: annotation {_short(annotation)} has the image_id of an image that is "
                "not listed."
            )
        label = categories[_id(annotation["category_id"])]
        listed[key].faces.append(_face(path, annotation, label))
    names = list(dict.fromkeys(categories.values()))
    return RawLabels([*listed.values(), *again], roots_beside(path), names)


def _check_categories(path: Path, annotations: list[Any], categories: dict[Any, str]) -> None:
    """Refuses annotations of unknown categories, whose boxes would become background."""
    unknown = []
    for annotation in annotations:
        if not isinstance(annotation, dict):
            raise ValueError(f"{path}: annotation {_short(annotation)}: expected an object.")
        key = _id(annotation.get("category_id"))
        if key not in categories:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{path}: {len(unknown)} of {len(annotations)} annotations have a category_id that is "
            f"not in the list of categories, for example {unknown[0]!r}; the list has "
            f"{_short(categories)}."
        )


def _image(path: Path, picture: Any) -> tuple[RawImage, Any]:
    try:
        name, key = picture["file_name"], _id(picture["id"])
        where = f"{path}: image {_short(picture)}"
        size = stated_size(picture["height"], picture["width"], where)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: image {_short(picture)} needs id, file_name, height and width ({error!r})."
        ) from None
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: file_name must be a non-empty string.")
    return RawImage(name, (name,), [], size), key


def _face(path: Path, annotation: dict[str, Any], label: str) -> RawFace:
    where = f"{path}: annotation {_short(annotation)}"
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"{where} needs bbox [x, y, width, height].")
    x, y, w, h = finite(box, where)
    # MMDetection's lists of WIDER FACE mark such faces by "ignore".
    crowd, ignore = finite([annotation.get(key) or 0 for key in ("iscrowd", "ignore")], where)
    attributes = [annotation.get(name) for name in ATTRIBUTES]
    known = all(isinstance(value, int) and 0 <= value < 100 for value in attributes)
    return RawFace((x, y, w, h), label, bool(crowd or ignore), tuple(attributes) if known else None)


def _id(value: Any) -> Any:
    """An id as a number if it is one: 1, 1.0 and "1" are equal; other strings, as "1e3", stay."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (number := _WHOLE_NUMBER.fullmatch(value.strip())):
        return int(number[1])
    return value if isinstance(value, (int, float)) else str(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:160]}..."
