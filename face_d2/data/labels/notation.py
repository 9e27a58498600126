"""Reads labels by their notation, ``PATH`` or ``FORMAT:LABELS:IMAGES:CATEGORY``.

IMAGES and CATEGORY are optional. Without IMAGES, the images are searched near the labels. Without
CATEGORY, the faces are the labels of the class called face, or of the only class.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from face_d2.data.labels.assemble import assemble
from face_d2.data.labels.coco import read_coco
from face_d2.data.labels.files import NOT_LABELS, files_below, read_json, read_xml
from face_d2.data.labels.json_forms import is_label_studio, read_label_studio, read_labelme
from face_d2.data.labels.model import Findings, Labels, RawLabels
from face_d2.data.labels.text_forms import read_retinaface, read_wider, read_yolo
from face_d2.data.labels.xml_forms import read_cvat, read_voc
from face_d2.data.locate import has_image_suffix
from face_d2.utils.text_lines import numbered_lines

__all__ = [
    "FORMATS",
    "is_labels_of_another_format",
    "is_notation",
    "plain_name",
    "read_labels",
    "recognize",
]

_Reader = Callable[[Path, "Path | None", Findings], RawLabels]

#: Format -> its reader (labels, image folder or None, findings).
FORMATS: dict[str, _Reader] = {
    "wider": read_wider,
    "coco": read_coco,
    "yolo": read_yolo,
    "voc": read_voc,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "labelstudio": read_label_studio,
    "retinaface": read_retinaface,
}
#: Formats with one label file per image; the notation names their folder.
_PER_IMAGE = ("yolo", "voc", "labelme")
_LONGEST_NAME = 80
_LOOKED_AT = 200  # maximum number of files per suffix that are opened to detect the format


def is_notation(text: str) -> bool:
    """Whether a text is a notation: an existing path, or a text that starts with a format."""
    form, *_ = _split(text)
    return form is not None or os.path.exists(text)


def is_labels_of_another_format(text: str) -> bool:
    """Whether a text is a notation of labels other than a WIDER FACE list or a .mat folder."""
    if not is_notation(text):
        return False
    path = Path(text)
    if path.is_dir():
        official = any(path.glob("*.mat")) or (path / "eval_tools").is_dir()
        return not official and bool(_forms_in(path))
    return not path.is_file() or _form_of(path) not in (None, "wider")


def plain_name(text: str) -> str:
    """A data set's name or notation as a file name; plain names do not change."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[-_LONGEST_NAME:].lstrip("-.") or "images"


def read_labels(text: str | os.PathLike[str], *, folder: str | None = None) -> Labels:
    """Reads a labeled set.

    Args:
        text: a file or folder of labels, whose format is detected; or
            ``FORMAT:LABELS``, ``FORMAT:LABELS:IMAGES`` or ``FORMAT:LABELS:IMAGES:CATEGORY``.
        folder: first part of the names of images directly in the image folder; None takes the name
            of the image folder.

    Returns:
        The images with their faces, and the findings.

    Raises:
        FileNotFoundError: labels or images are missing; the message has examples and a hint.
        ValueError: the labels have another or an unknown format; a line or entry is malformed; or
            the size of an image differs from the labels.
    """
    text = os.fspath(text)
    form, labels, images, category = _split(text)
    source, image_root = Path(labels), Path(images) if images else None
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder of labels.")
    if image_root is not None and not image_root.is_dir():
        raise FileNotFoundError(f"{image_root}: no such image folder.")
    if form is None:
        form, source = recognize(source)
    if form not in _PER_IMAGE and source.is_dir():
        source = _only(source, form, _forms_in(source).get(form, []))
    findings = Findings()
    raw = FORMATS[form](source, image_root, findings)
    return assemble(
        form, source, image_root, raw, findings, category=category or None, folder=folder
    )


def recognize(path: Path) -> tuple[str, Path]:
    """Detects the format of a file or folder; returns it, and the file or folder of the labels.

    Raises:
        ValueError: there are no labels of a known format, or labels of several formats.
    """
    found = _forms_in(path)
    if not found:
        raise ValueError(
            f"{path}: contains no labels of a known format ({', '.join(FORMATS)}). To name the "
            f"format: FORMAT:LABELS:IMAGES.{_unreadable(path)}"
        )
    if len(found) > 1:
        listed = "; ".join(f"{form} ({_some(files)})" for form, files in sorted(found.items()))
        raise ValueError(
            f"{path} contains labels of several formats: {listed}. Name one: FORMAT:LABELS:IMAGES."
        )
    ((form, files),) = found.items()
    if form in _PER_IMAGE:
        if path.is_file():
            return form, path.parent if form == "yolo" else path
        every = files_below(path, files[0].suffix.lower())
        return form, Path(os.path.commonpath([file.parent for file in every]))
    return form, _only(path, form, files)


def _split(text: str) -> tuple[str | None, str, str, str]:
    """Format (None for a path), labels, images and category of a notation."""
    parts = text.split(":")
    if parts[0] not in FORMATS or os.path.exists(text):
        return None, text, "", ""
    form, *rest = parts
    joined = _parts(rest)
    if len(joined) > 3:
        raise ValueError(f"{text!r}: expected at most four parts, FORMAT:LABELS:IMAGES:CATEGORY.")
    labels, images, category = [*joined, "", ""][:3]
    return form, labels, images, category


def _parts(pieces: list[str]) -> list[str]:
    """Labels, images and category; the colons in a path that exists or of a drive separate none."""
    parts: list[str] = []
    while pieces:
        count = 1
        if len(parts) < 2:
            tried = range(1, len(pieces) + 1)
            count = next((n for n in tried if os.path.exists(":".join(pieces[:n]))), 1)
        if count == 1 and re.fullmatch("[A-Za-z]", pieces[0]) and len(pieces) > 1:
            count += pieces[1].startswith(("\\", "/"))
        parts.append(":".join(pieces[:count]))
        pieces = pieces[count:]
    return parts


def _only(path: Path, form: str, files: list[Path]) -> Path:
    """The only file of a format below a path."""
    if not files:
        raise ValueError(f"{path}: contains no labels of the format {form}.")
    if len(files) > 1:
        raise ValueError(
            f"{path} contains {len(files)} label files ({form}): {_some(files)}. Name one of them."
        )
    return files[0]


def _some(files: list[Path]) -> str:
    names = [str(file) for file in files[:4]]
    return ", ".join([*names, *(["..."] if len(files) > 4 else [])])


def _forms_in(path: Path) -> dict[str, list[Path]]:
    """Format -> its files, of one file or of those below a folder."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in _looked_at(path):
        if form := _form_of(file):
            found[form].append(file)
    return dict(found)


def _looked_at(path: Path) -> list[Path]:
    """The files that decide the format: a file, or a part of those below a folder."""
    if path.is_file():
        return [path]
    below = [files_below(path, suffix) for suffix in (".json", ".xml", ".txt")]
    return [f for files in below for f in files[:: max(1, len(files) // _LOOKED_AT)]]


def _unreadable(path: Path) -> str:
    """The error of the first file that cannot be read, for the message that there are no labels."""
    for file in _looked_at(path):
        try:
            _read_form(file)
        except (OSError, ValueError) as error:
            return f" One of the files cannot be read: {error}"
    return ""


def _form_of(file: Path) -> str | None:
    """The format of one file; None if it contains no labels or cannot be read."""
    try:
        return _read_form(file)
    except (OSError, ValueError):
        return None


def _read_form(file: Path) -> str | None:
    """The format of one file; an OSError or ValueError if it cannot be read."""
    suffix = file.suffix.lower()
    if suffix == ".json":
        return _form_of_json(read_json(file))
    if suffix == ".xml":
        element = read_xml(file)
        if element.tag == "annotation":
            return "voc"
        return "cvat" if element.tag == "annotations" else None
    if suffix == ".txt" and file.name.lower() not in NOT_LABELS:
        return _form_of_text(file)
    return None


def _form_of_json(content: Any) -> str | None:
    if isinstance(content, dict):
        if "images" in content and "annotations" in content:
            return "coco"
        return "labelme" if isinstance(content.get("shapes"), list) else None
    return "labelstudio" if is_label_studio(content) else None


def _form_of_text(file: Path) -> str | None:
    lines = (line for _, line in numbered_lines(file) if line)
    first, second = next(lines, ""), next(lines, "")
    if not first:
        return None  # a YOLO file of an image without a face, or another empty file
    if first.startswith("#"):
        return "retinaface" if has_image_suffix(first[1:].strip()) else None
    if has_image_suffix(first):
        return "wider" if second.isdecimal() else None
    try:
        numbers = [float(column) for column in first.split()]
    except ValueError:
        return None
    return "yolo" if len(numbers) >= 5 and numbers[0] % 1 == 0 else None
