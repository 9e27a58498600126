"""Readers of WIDER FACE's list, RetinaFace's label.txt, and YOLO's files (one per image)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import yaml

from face_d2.data.labels.files import files_below
from face_d2.data.labels.model import Findings, RawFace, RawImage, RawLabels, around, finite
from face_d2.data.locate import ImageFolder, has_image_suffix, same_name
from face_d2.data.wider_face import ATTRIBUTES, read_annotations
from face_d2.utils.text_lines import numbered_lines, quoted

__all__ = ["read_retinaface", "read_wider", "read_yolo", "roots_beside"]

#: Columns of a row of label.txt: a box, or a box with five landmarks (x, y, flag) and the blur.
_RETINAFACE_COLUMNS = (4, 19, 20)
#: Columns of a row of YOLO: a box, or a box with five landmarks (x, y), or (x, y, flag).
_YOLO_BOX_COLUMNS = (5, 15, 20)
_SUBFOLDERS = 50  # maximum number of folders beside a label file that are searched for images
_FRACTIONS = (-0.5, 1.5)  # valid fractions of a side; a box may reach beyond the border


def read_wider(path: Path, images: Path | None, findings: Findings) -> RawLabels:
    """Reads a list in WIDER FACE's format; image names may have any number of folders.

    Raises:
        OSError, ValueError: the file cannot be read, or a line is malformed.
    """
    invalid = ATTRIBUTES.index("invalid")
    listed = []
    for image in read_annotations(path, any_names=True):
        faces = [
            RawFace(tuple(box), None, bool(row[invalid]), tuple(row))
            for box, row in zip(image.boxes.tolist(), image.attributes.tolist())
        ]
        listed.append(RawImage(image.name, (image.name,), faces))
    split = path.name.removeprefix("wider_face_").partition("_bbx_gt")[0]
    return RawLabels(listed, roots_beside(path, f"WIDER_{split}/images"))


def read_retinaface(path: Path, images: Path | None, findings: Findings) -> RawLabels:
    """Reads RetinaFace's label.txt: "# event/file.jpg", then rows x y w h and landmarks.

    Raises:
        OSError, ValueError: the file cannot be read, or a line is malformed.
    """
    listed: list[RawImage] = []
    for number, text in numbered_lines(path):
        where = f"{path}, line {number}"
        if text.startswith("#"):
            name = text[1:].strip()
            if not name:
                raise ValueError(f"{where}: {quoted(text)}: expected the name of an image.")
            listed.append(RawImage(name, (name,), []))
        elif text:
            row = finite(text.split(), where)
            if not listed or len(row) not in _RETINAFACE_COLUMNS:
                columns = " or ".join(map(str, _RETINAFACE_COLUMNS))
                raise ValueError(
                    f"{where}: {quoted(text)}: expected '# event/file.jpg' or a row of {columns} "
                    "numbers below it (x y width height, five landmarks, blur)."
                )
            listed[-1].faces.append(RawFace(tuple(row[:4])))
    if not listed:
        raise ValueError(
            f"{path}: has no line '# event/file.jpg'; expected RetinaFace's label.txt."
        )
    return RawLabels(listed, roots_beside(path, "images"))


def roots_beside(path: Path, *further: str) -> list[Path]:
    """Folders that usually contain the images of a single label file."""
    beside, above = path.parent, path.parent.parent
    names = [*further, "images", "Images", "JPEGImages"]
    inside = [beside, *(beside / name for name in names), beside / path.stem]
    if beside.is_dir():
        inside += sorted(entry for entry in beside.iterdir() if entry.is_dir())[:_SUBFOLDERS]
    return [*inside, above, *(above / name for name in names), above / path.stem]


def read_yolo(path: Path, images: Path | None, findings: Findings) -> RawLabels:
    """Reads a folder of YOLO's text files: rows "class center_x center_y width height".

    Coordinates are fractions of the image's sides. An image without a text file is background. A
    row may have five landmarks after the box (YOLO5Face); other rows with more columns are outlines
    "class x1 y1 x2 y2 ...".

    Raises:
        OSError, ValueError: a file cannot be read, or a line is malformed.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: expected the folder of YOLO's text files, one per image.")
    folder = ImageFolder(images or _image_folder(path))
    pictures: dict[str, list[str]] = defaultdict(list)
    for name in folder.images():
        pictures[_stem(name, "images")].append(name)
    files = files_below(path, ".txt")
    # Text files next to a folder "labels" are lists of images and the like.
    inside = [file for file in files if "labels" in file.relative_to(path).parts[:-1]]
    found = {same_name(stem): stem for stem in pictures}
    rows: dict[str, list[tuple[str, list[float]]]] = {}
    for file in inside or files:
        stem = _stem(file.relative_to(path).as_posix(), "labels")
        if stem not in pictures:
            if _lists_images(file):
                continue
            stem = found.get(same_name(stem), stem)  # in another case or Unicode form
        if stem in rows:
            raise ValueError(f"{file}: another text file has labels of the same image, {stem}.")
        rows[stem] = _yolo_rows(file)
    names = _class_names(path)
    outlines = any(len(row) not in _YOLO_BOX_COLUMNS for file in rows.values() for _, row in file)
    listed = []
    for stem, content in rows.items():
        faces = [_yolo_face(where, row, names, outlines, findings) for where, row in content]
        # A text file without an image keeps its name, for the error about missing images.
        for name in pictures.get(stem) or [f"{stem}.*".lstrip("/")]:
            listed.append(RawImage(name, (name,), faces, fractions=True))
    for stem in sorted(pictures.keys() - rows.keys()):
        for name in pictures[stem]:
            findings.add("unlabeled", name)
            listed.append(RawImage(name, (name,), [], fractions=True))
    listed.sort(key=lambda image: image.name)
    used = {face.label for image in listed for face in image.faces}
    return RawLabels(listed, [folder.root], sorted({*names.values(), *used}))


def _image_folder(labels: Path) -> Path:
    """The image folder of a folder of text files: ``labels`` becomes ``images``."""
    parts = labels.absolute().parts
    for index in reversed(range(len(parts))):
        if parts[index].lower() == "labels":
            other = Path(*parts[:index], "images", *parts[index + 1 :])
            if other.is_dir():
                return other
    return labels


def _stem(name: str, folder: str) -> str:
    """A path without its suffix and without folders of a name."""
    parts = name.removesuffix(Path(name).suffix).split("/")
    return "/".join(part for part in parts[:-1] if part != folder) + "/" + parts[-1]


def _lists_images(file: Path) -> bool:
    """Whether a text file lists images, such as the train.txt beside Darknet's labels."""
    return has_image_suffix(next((text for _, text in numbered_lines(file) if text), ""))


def _yolo_rows(file: Path) -> list[tuple[str, list[float]]]:
    rows = []
    for number, text in numbered_lines(file):
        if text:
            where = f"{file}, line {number}"
            row = finite(text.split(), where)
            if len(row) < 5 or len(row) in (6, 8) or row[0] < 0 or row[0] % 1:
                raise ValueError(
                    f"{where}: {quoted(text)}: expected 'class center_x center_y width height', "
                    "optionally followed by landmarks, or an outline 'class x y x y x y ...'."
                )
            rows.append((where, row))
    return rows


def _yolo_face(
    where: str, row: list[float], names: dict[int, str], outlines: bool, findings: Findings
) -> RawFace:
    label = names.get(int(row[0]), f"class {int(row[0])}")
    if outlines and len(row) > 5:
        if len(row) % 2 == 0:
            raise ValueError(
                f"{where}: an outline has {len(row) - 1} numbers; expected an even number, x and y "
                "of each point."
            )
        values = row[1:]
        box = around(zip(values[::2], values[1::2]))
        findings.add("around", where)
    else:
        x, y, w, h = values = row[1:5]
        box = (x - w / 2, y - h / 2, w, h)
    if not all(_FRACTIONS[0] <= value <= _FRACTIONS[1] for value in values):
        raise ValueError(
            f"{where}: {' '.join(f'{value:g}' for value in row[:5])}: expected fractions of the "
            "image's sides, 0 to 1; these are probably pixels."
        )
    return RawFace(box, label)


def _class_names(labels: Path) -> dict[int, str]:
    """Names of the classes, from data.yaml or classes.txt in the labels' folder or above it."""
    for folder in (labels, *labels.absolute().parents[:3]):
        for file in sorted(folder.glob("*.y*ml")):
            if names := _names_in_yaml(file):
                return names
        for name in ("classes.txt", "obj.names"):
            if (folder / name).is_file():
                lines = [text for _, text in numbered_lines(folder / name)]
                return {number: text for number, text in enumerate(lines) if text}
    return {}


def _names_in_yaml(file: Path) -> dict[int, str]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        names: Sequence[str] | dict[int, str] = content["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in pairs}
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return {}  # the yaml of another program
