"""The notation of a labeled set, ``PATH`` or ``FORMAT:LABELS:IMAGES:CATEGORY``, and its reading.

IMAGES and CATEGORY may be left out: the images are then looked for around the labels, and the faces
are the labels called face, or the only kind there is.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from face_d2.data.labels.assemble import assemble
from face_d2.data.labels.coco import read_coco
from face_d2.data.labels.files import NOT_LABELS, files_below, read_json, read_xml
from face_d2.data.labels.json_forms import is_label_studio, read_label_studio, read_labelme
from face_d2.data.labels.model import Findings, Labels, RawLabels
from face_d2.data.labels.text_forms import read_retinaface, read_wider, read_yolo
from face_d2.data.labels.xml_forms import read_cvat, read_voc
from face_d2.data.locate import IMAGE_SUFFIXES

__all__ = [
    "FORMATS",
    "is_labels_of_another_form",
    "is_notation",
    "plain_name",
    "read_labels",
    "recognize",
]

_Reader = Callable[[Path, "Path | None", Findings], RawLabels]

#: Form -> its reader (labels, folder of the images or None, findings).
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
#: Forms with one file of labels for each image; they are given by their folder.
_PER_IMAGE = ("yolo", "voc", "labelme")
_LONGEST_NAME = 80
_LOOKED_AT = 200  # files of a folder that are opened, of each ending


def is_notation(text: str) -> bool:
    """Whether a text names labels by a path that exists, or by a form in front."""
    form, *_ = _split(text)
    return form is not None or os.path.exists(text)


def is_labels_of_another_form(text: str) -> bool:
    """Whether a text names labels that are neither a WIDER FACE list nor a folder of .mat files."""
    if not is_notation(text):
        return False
    path = Path(text)
    if path.is_dir():
        official = any(path.glob("*.mat")) or (path / "eval_tools").is_dir()
        return not official and bool(_forms_in(path))
    return not path.is_file() or _form_of(path) not in (None, "wider")


def plain_name(text: str) -> str:
    """A data set's name or notation as a name for a file or folder; plain names stay."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[-_LONGEST_NAME:].lstrip("-.") or "images"


def read_labels(text: str | os.PathLike[str], *, folder: str | None = None) -> Labels:
    """Reads a labeled set.

    Args:
        text: a file or folder of labels, whose form is recognized by looking at it; or
            ``FORMAT:LABELS``, ``FORMAT:LABELS:IMAGES`` or ``FORMAT:LABELS:IMAGES:CATEGORY``.
        folder: first part of the names of images that lie in the image folder itself; by default
            the image folder's name.

    Returns:
        The images with their faces, and what was changed or left out to read them.

    Raises:
        FileNotFoundError: labels or images are missing; the number, examples and a hint are named.
        ValueError: the labels have another form, or one that is not known; a line or entry is
            malformed; an image has another size than the labels say.
    """
    text = os.fspath(text)
    form, labels, images, category = _split(text)
    source, image_root = Path(labels), Path(images) if images else None
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder of labels.")
    if image_root is not None and not image_root.is_dir():
        raise FileNotFoundError(f"{image_root}: no such folder of images.")
    if form is None:
        form, source = recognize(source)
    if form not in _PER_IMAGE and source.is_dir():
        form, source = _only_file(form, source)
    findings = Findings()
    raw = FORMATS[form](source, image_root, findings)
    return assemble(
        form,
        source,
        image_root,
        raw,
        findings,
        category=category or None,
        folder=folder,
    )


def recognize(path: Path) -> tuple[str, Path]:
    """The form of labels, by looking at them.

    Args:
        path: a file of labels, or a folder.

    Returns:
        A key of ``FORMATS``, and the file or folder that holds the labels.

    Raises:
        ValueError: there are no labels of a known form, or of several.
    """
    found = _forms_in(path)
    if not found:
        wanted = ", ".join(FORMATS)
        raise ValueError(
            f"{path}: no labels of a known form ({wanted}). If there are some, say which: "
            "FORMAT:LABELS:IMAGES."
        )
    if len(found) > 1:
        listed = "; ".join(f"{form} ({_some(files)})" for form, files in sorted(found.items()))
        raise ValueError(
            f"{path} holds labels of several forms: {listed}. Say which: FORMAT:LABELS:IMAGES."
        )
    ((form, files),) = found.items()
    if form in _PER_IMAGE:
        if path.is_file():
            return form, path.parent if form == "yolo" else path
        every = files_below(path, files[0].suffix.lower())
        return form, Path(os.path.commonpath([file.parent for file in every]))
    return form, _only(path, form, files)


def _split(text: str) -> tuple[str | None, str, str, str]:
    """Form (None for a path), labels, images and category of a notation.

    Raises:
        ValueError: it has more parts.
    """
    parts = text.split(":")
    if parts[0] not in FORMATS or os.path.exists(text):
        return None, text, "", ""
    form, *rest = parts
    # A letter before ":\" or ":/" is a drive of Windows.
    joined: list[str] = []
    for part in rest:
        drive = bool(joined) and len(joined[-1]) == 1 and part[:1] in ("\\", "/")
        if drive and joined[-1].isalpha():
            joined[-1] += f":{part}"
        else:
            joined.append(part)
    if len(joined) > 3:
        raise ValueError(f"{text!r}: expected FORMAT:LABELS:IMAGES:CATEGORY, four parts at most.")
    labels, images, category = [*joined, "", ""][:3]
    return form, labels, images, category


def _only_file(form: str, folder: Path) -> tuple[str, Path]:
    """The one file of a form in a folder."""
    files = _forms_in(folder).get(form, [])
    if not files:
        raise ValueError(f"{folder}: no labels of the form {form}.")
    return form, _only(folder, form, files)


def _only(path: Path, form: str, files: list[Path]) -> Path:
    if len(files) > 1:
        raise ValueError(
            f"{path} holds {len(files)} files of labels ({form}): {_some(files)}. Name the one."
        )
    return files[0]


def _some(files: list[Path]) -> str:
    names = [str(file) for file in files[:4]]
    return ", ".join([*names, *(["..."] if len(files) > 4 else [])])


def _forms_in(path: Path) -> dict[str, list[Path]]:
    """Form -> its files, of one file or of those below a folder."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in _candidates(path):
        if form := _form_of(file):
            found[form].append(file)
    return dict(found)


def _candidates(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for suffix in (".json", ".xml", ".txt"):
        files = list(files_below(path, suffix))
        # Of thousands of files, one for each image, a part tells the form.
        yield from files[:: max(1, len(files) // _LOOKED_AT)]


def _form_of(file: Path) -> str | None:
    """The form of one file, None for one that is no file of labels."""
    suffix = file.suffix.lower()
    try:
        if suffix == ".json":
            return _form_of_json(read_json(file))
        if suffix == ".xml":
            element = read_xml(file)
            if element.tag == "annotation":
                return "voc"
            return "cvat" if element.tag == "annotations" else None
        if suffix == ".txt" and file.name.lower() not in NOT_LABELS:
            return _form_of_text(file)
    except (OSError, ValueError):
        return None
    return None


def _form_of_json(content: Any) -> str | None:
    if isinstance(content, dict):
        if "images" in content and "annotations" in content:
            return "coco"
        return "labelme" if isinstance(content.get("shapes"), list) else None
    return "labelstudio" if is_label_studio(content) else None


def _form_of_text(file: Path) -> str | None:
    with open(file, encoding="utf-8-sig") as opened:
        lines = [line.strip() for line in opened.readlines(20_000)]
    lines = [line for line in lines if line]
    if not lines:
        return None  # YOLO's file of an image without a face, or any other empty one
    first, rest = lines[0], lines[1:]
    if first.startswith("#"):
        return "retinaface" if _is_image(first[1:].strip()) else None
    if _is_image(first):
        return "wider" if rest and rest[0].isdecimal() else None
    columns = first.split()
    try:
        numbers = [float(column) for column in columns]
    except ValueError:
        return None
    return "yolo" if len(numbers) >= 5 and numbers[0] % 1 == 0 else None


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES
