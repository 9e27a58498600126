"""Turns the output of a label reader into images with checked boxes in pixels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from face_d2.data.image_size import UNREADABLE_SIZE, image_sizes
from face_d2.data.labels.model import Findings, LabeledImage, Labels, RawFace, RawImage, RawLabels
from face_d2.data.locate import ImageFolder, has_image_suffix, missing_images

__all__ = ["assemble"]

#: Class names that mean a face, in lower case.
_FACE_NAMES = ("face", "faces", "human face", "human_face", "human-face")
#: Pixels by which a box may exceed its image without a finding, because of rounding.
_OUTSIDE = 2
#: Fractions of a side have about six digits; rounding restores whole pixels.
_PIXEL_DIGITS = 2
_TRIED_NAMES = 50  # number of images that decide which folder contains the images


def assemble(
    form: str,
    source: Path,
    images: Path | None,
    raw: RawLabels,
    findings: Findings,
    *,
    category: str | None,
    folder: str | None,
) -> Labels:
    """Finds the image files, selects the faces, and converts the boxes to pixels.

    Args:
        form, source: format and path of the labels.
        images: folder of the images; None chooses the one of ``raw.roots`` that contains them.
        raw, findings: the output of the reader; findings are added.
        category: class of the faces; None chooses the class called face, or the only class.
        folder: first part of the names of images directly in the image folder; None takes the name
            of the image folder.

    Raises:
        FileNotFoundError: images are missing; the message has their number, examples and a hint.
        ValueError: no class contains faces, or the size of an image differs from the labels.
    """
    if not raw.images:
        raise ValueError(f"{source}: the labels list no image; expected at least one.")
    chosen = _face_classes(source, raw, category, findings)
    root = ImageFolder(images) if images is not None else _best_root(source, raw)
    files = _files(source, root, raw.images, findings)
    joined = _joined(files, raw.images, findings)
    paths = sorted(joined)  # the same order, and so the same training, for every format
    image_root = root.root.absolute()
    if images is None and not all(Path(path).is_relative_to(image_root) for path in paths):
        image_root = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))
    if raw.one_file_each:
        _count_left_out(paths, findings)
    sizes = image_sizes(image_root, [_below(image_root, path) for path in paths])
    _check_sizes(source, joined, dict(zip(paths, sizes)))
    names = _names(image_root, paths, folder or image_root.name or "images")
    found = [
        _image(path, name, size, joined[path], chosen, findings)
        for path, size, name in zip(paths, sizes, names)
    ]
    return Labels(form, source, image_root, found, findings)


def _face_classes(
    source: Path, raw: RawLabels, category: str | None, findings: Findings
) -> set[str | None]:
    """The labels that mean faces; boxes without a label count as faces."""
    used = Counter(face.label for image in raw.images for face in image.faces)
    if raw.categories is None:
        return {None}
    known = list(raw.categories) or sorted(label for label in used if label)
    if category is not None:
        named = [name for name in known if name == category]
        named = named or [name for name in known if name.casefold() == category.casefold()]
        if not named:
            raise ValueError(f"{source}: has no category {category!r}; expected one of {known}.")
    else:
        named = [name for name in known if name.strip().casefold() in _FACE_NAMES]
    if not named:
        others = [label for label in used if label] or known
        if len(others) > 1:
            raise ValueError(
                f"{source}: none of the categories {sorted(others)} is called face; name the right "
                "one as FORMAT:LABELS:IMAGES:CATEGORY."
            )
        named = others
        for label in others:
            if used[label]:
                findings.add("taken", repr(label), used[label])
    for label, count in used.items():
        if label not in named:
            findings.add("other_labels" if label else "no_label", repr(label or ""), count)
    return {None, "", *named}


def _best_root(source: Path, raw: RawLabels) -> ImageFolder:
    """The folder that contains most of the first images; the first folder if none does.

    Folders are searched only if no image is found by its name, and then only folders beside the
    labels, because the parent folder may be a whole disk.
    """
    sample = raw.images[:: max(1, len(raw.images) // _TRIED_NAMES)]
    folders = [ImageFolder(root) for root in dict.fromkeys(raw.roots) if root.is_dir()]
    beside = source if source.is_dir() else source.parent
    inside = [folder for folder in folders if folder.root != beside.parent]
    for chosen, look in ((folders, ImageFolder.find_as_written), (inside, ImageFolder.find)):
        counts = [
            sum(any(look(folder, name) for name in image.candidates) for image in sample)
            for folder in chosen
        ]
        if any(counts):
            return chosen[counts.index(max(counts))]
    return ImageFolder(raw.roots[0])


def _files(
    source: Path, folder: ImageFolder, images: Sequence[RawImage], findings: Findings
) -> list[str]:
    """The absolute path of every image."""
    found: list[str] = []
    missing = []
    for image in images:
        at = next(filter(None, map(folder.find, image.candidates)), None)
        if at is None:
            missing.append(image.name)
            continue
        path, how = at
        if how:
            findings.add(how, image.name)
        found.append(os.path.normpath(path.absolute()))
    if missing:
        raise FileNotFoundError(missing_images(source, folder, missing, len(images)))
    return found


def _joined(
    files: Sequence[str], images: Sequence[RawImage], findings: Findings
) -> dict[str, RawImage]:
    """Images by their files; the faces of an image that is listed twice are merged."""
    joined: dict[str, RawImage] = {}
    for file, image in zip(files, images):
        first = joined.get(file)
        if first is None:
            joined[file] = image
            continue
        findings.add("listed_twice", image.name)
        sizes = {first.size, image.size} - {None}
        if len(sizes) > 1:
            raise ValueError(
                f"{file} is listed twice in the labels, with the sizes {sorted(sizes)} "
                "(height, width); remove the wrong one."
            )
        faces = [*first.faces, *image.faces]
        joined[file] = replace(first, faces=faces, size=first.size or image.size)
    return joined


def _count_left_out(paths: Sequence[str], findings: Findings) -> None:
    """Counts the images in the same folders that have no labels."""
    known = set(paths)
    for folder in sorted({os.path.dirname(path) for path in paths}):
        for name in sorted(os.listdir(folder)):
            if has_image_suffix(name) and os.path.join(folder, name) not in known:
                findings.add("left_out", name)


def _check_sizes(
    source: Path, images: dict[str, RawImage], sizes: dict[str, tuple[int, int]]
) -> None:
    """Checks the image sizes in the labels, because boxes refer to them."""
    wrong = [
        (path, sizes[path], image.size)
        for path, image in images.items()
        if image.size is not None and sizes[path] not in (image.size, UNREADABLE_SIZE)
    ]
    if wrong:
        path, size, said = wrong[0]
        turned = ""
        if size == said[::-1]:
            turned = "; the labels have the size without the EXIF orientation"
        raise ValueError(
            f"{source}: the size of {len(wrong)} of {len(images)} images differs from the labels: "
            f"{path} is {size[1]} x {size[0]} pixels (upright), the labels say {said[1]} x "
            f"{said[0]}{turned}. Use the images that were labeled, or correct the labels."
        )


def _below(root: Path, path: str) -> str:
    """The path relative to the root, for the cache of sizes and messages; else the path."""
    return os.path.relpath(path, root) if Path(path).is_relative_to(root) else path


def _names(root: Path, paths: Sequence[str], folder: str) -> list[str]:
    """A name "folder/name" for each image, distinct."""
    taken: set[str] = set()
    names = []
    shared = Counter(_name(root, Path(path), folder) for path in paths)
    for path in paths:
        event, _, name = _name(root, Path(path), folder).rpartition("/")
        if shared[f"{event}/{name}"] > 1:  # two pictures that differ only in their suffix
            name = Path(path).name
        number, key = 2, f"{event}/{name}"
        while key in taken:
            key, number = f"{event}~{number}/{name}", number + 1
        taken.add(key)
        names.append(key)
    return names


def _name(root: Path, path: Path, folder: str) -> str:
    parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts[-2:]
    return f"{'--'.join(parts[:-1]) or folder}/{path.stem}"


def _image(
    path: str,
    name: str,
    size: tuple[int, int],
    raw: RawImage,
    chosen: set[str | None],
    findings: Findings,
) -> LabeledImage:
    faces = [face for face in raw.faces if face.label in chosen]
    if size == UNREADABLE_SIZE:
        findings.add("unreadable", raw.name)
        size = raw.size or size
        if raw.fractions and size == UNREADABLE_SIZE:
            faces = []
    height, width = size
    boxes: dict[tuple[float, ...], RawFace] = {}
    for face in faces:
        box = _pixels(face.box, size) if raw.fractions else face.box
        what = f"{raw.name}: {' '.join(f'{value:g}' for value in box)}"
        x, y, w, h = box
        if w < 0 or h < 0:
            findings.add("turned", what)
            x, y, w, h = min(x, x + w), min(y, y + h), abs(w), abs(h)
        empty = min(w, h) <= 0
        if empty:
            findings.add("no_area", what)
        ignored = face.ignored or empty
        same = boxes.get((x, y, w, h))
        if same is not None:
            findings.add("repeated", what)
            ignored = ignored and same.ignored
        elif min(x, y) < -_OUTSIDE or x + w > width + _OUTSIDE or y + h > height + _OUTSIDE:
            findings.add("outside", what)
        boxes[x, y, w, h] = replace(same or face, ignored=ignored)
    kept = list(boxes.values())
    attributes = None
    if kept and all(face.attributes is not None for face in kept):
        attributes = np.array([face.attributes for face in kept], np.int64)
    return LabeledImage(
        file=path,
        name=name,
        height=height,
        width=width,
        boxes=np.array(list(boxes), np.float64).reshape(-1, 4),
        ignored=np.array([face.ignored for face in kept], bool),
        attributes=attributes,
    )


def _pixels(box: tuple[float, ...], size: tuple[int, int]) -> tuple[float, float, float, float]:
    height, width = size
    x1, y1 = box[0] * width, box[1] * height
    x2, y2 = x1 + box[2] * width, y1 + box[3] * height
    x1, y1, x2, y2 = (round(value, _PIXEL_DIGITS) for value in (x1, y1, x2, y2))
    return x1, y1, round(x2 - x1, _PIXEL_DIGITS), round(y2 - y1, _PIXEL_DIGITS)
