"""Writes an annotation list without the unusable images and boxes that a check found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from face_d2.data.check import BOX_PROBLEMS, IMAGE_PROBLEMS, CheckedImage, DatasetCheck
from face_d2.data.wider_face import WiderFaceImage, write_annotations
from face_d2.utils.files import write_text

__all__ = ["changes_file", "write_cleaned"]


def changes_file(path: str | Path) -> Path:
    """The file in which :func:`write_cleaned` lists its changes: ``path`` + ``.changes.txt``."""
    path = Path(path)
    return path.with_name(path.name + ".changes.txt")


def write_cleaned(path: str | Path, images: Sequence[WiderFaceImage], check: DatasetCheck) -> int:
    """Writes a list without problems, and a second file with the changes.

    Images with a problem are left out; of duplicates, the first one stays. Boxes partly outside
    the image are clipped; other boxes with a problem are left out.

    Args:
        path: the annotation text to write, in WIDER FACE's format.
        images: the list that was checked.
        check: the result of the check.

    Returns:
        The number of changes, which are the lines of ``changes_file(path)``.

    Raises:
        ValueError: every image has a problem, so the list would be empty.
    """
    kept = [(i, c) for i, c in zip(images, check.images) if c.problem is None]
    if not kept:
        raise ValueError(f"{path} is not written: each of the {len(images)} images has a problem.")
    write_annotations(path, (_cleaned(image, checked) for image, checked in kept))
    changes = list(_changes(check))
    write_text("".join(f"{line}\n" for line in changes), changes_file(path))
    return len(changes)


def _cleaned(image: WiderFaceImage, checked: CheckedImage) -> WiderFaceImage:
    """The image with its usable boxes."""
    problems = {problem.row: problem.clipped for problem in checked.boxes}
    boxes = [problems.get(row, box) for row, box in enumerate(image.boxes.tolist(), start=1)]
    kept = [row for row, box in enumerate(boxes) if box is not None]
    cut = np.array([boxes[row] for row in kept], np.float64).reshape(-1, 4)
    return WiderFaceImage(image.name, cut, image.attributes[kept])


def _changes(check: DatasetCheck) -> Iterator[str]:
    for image in check.images:
        if image.problem is not None:
            yield f"{image.name}: left out, {IMAGE_PROBLEMS[image.problem]} ({image.detail})"
            continue
        for box in image.boxes:
            done = "left out" if box.clipped is None else f"cut to {_numbers(box.clipped)}"
            face = f"{image.name}, face {box.row}, {_numbers(box.box)}"
            yield f"{face}: {done}, {BOX_PROBLEMS[box.problem]}"


def _numbers(box: Sequence[float]) -> str:
    return " ".join(f"{value:.10g}" for value in box)
