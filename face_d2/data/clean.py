"""A cleaned annotation list: without the images and boxes that a check found to be of no use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from face_d2.data.check import BOX_PROBLEMS, IMAGE_PROBLEMS, CheckedImage, DatasetCheck
from face_d2.data.wider_face import ATTRIBUTES, WiderFaceImage
from face_d2.files import replaced_file

__all__ = ["changes_file", "write_cleaned"]


def changes_file(path: str | Path) -> Path:
    """Where :func:`write_cleaned` says what it changed: ``path`` with ``.changes.txt`` added."""
    path = Path(path)
    return path.with_name(path.name + ".changes.txt")


def write_cleaned(path: str | Path, images: Sequence[WiderFaceImage], check: DatasetCheck) -> int:
    """Writes the list without what is wrong, and beside it what was left out or changed.

    Images with a problem are left out, of duplicates the first stays; boxes that reach over the
    border are cut at it, the other boxes with a problem are left out.

    Args:
        path: annotation text in WIDER FACE's form.
        images: the list that was checked.
        check: what was found.

    Returns:
        How many lines ``changes_file(path)`` has, one per change.

    Raises:
        ValueError: every image has a problem, so that nothing would be left.
    """
    kept = [(i, c) for i, c in zip(images, check.images) if c.problem is None]
    if not kept:
        raise ValueError(f"{path} is not written: each of the {len(images)} images has a problem.")
    lines = [line for image, checked in kept for line in _entry(image, checked)]
    changes = list(_changes(check))
    with replaced_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with replaced_file(changes_file(path)) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in changes), encoding="utf-8")
    return len(changes)


def _entry(image: WiderFaceImage, checked: CheckedImage) -> Iterator[str]:
    """The lines of one image."""
    problems = {problem.row: problem for problem in checked.boxes}
    rows = []
    for row, (box, attributes) in enumerate(zip(image.boxes.tolist(), image.attributes), start=1):
        if row in problems:
            box = problems[row].clipped
        if box is not None:
            rows.append(" ".join([_numbers(box), *map(str, attributes)]))
    yield image.name
    yield str(len(rows))
    yield from rows or [" ".join("0" * (4 + len(ATTRIBUTES)))]


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
