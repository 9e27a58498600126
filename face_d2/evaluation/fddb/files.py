"""FDDB's format for detections: one text file for all images.

The file contains, for every image, its name, the number of rows, and the rows: "x y w h score" for
rectangles, or "major_radius minor_radius angle x y score" for ellipses (angle in radians).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_d2.data.wider_face import image_key
from face_d2.utils.files import replaced_file
from face_d2.utils.text_lines import numbered_lines, parse_count, quoted

__all__ = ["read_fddb_detections", "write_fddb_detections"]

_FORMS = {5: "x y w h score", 6: "major_radius minor_radius angle x y score"}
_EXPECTED = " or ".join(repr(form) for form in _FORMS.values())


def read_fddb_detections(
    detections: str | Path | Mapping[str, ArrayLike], images: Iterable[str]
) -> dict[str, NDArray[np.float64]]:
    """Reads and validates detections.

    Args:
        detections: a file, or a mapping from image name to rows.
        images: the allowed names, without image suffix; suffixes in the detections are removed.

    Returns:
        ``{image name: (N, 5) rectangles or (N, 6) ellipses, score last}``, one kind throughout.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a row is invalid; the message names file and line, or image and row.
    """
    if isinstance(detections, Mapping):
        return _collect(
            ((name, f"detections for {name!r}", rows) for name, rows in detections.items()), images
        )
    path = Path(detections)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of detections.")
    return _collect(_entries(path), images)


def write_fddb_detections(detections: Mapping[str, ArrayLike], path: str | Path) -> None:
    """Writes a file of rectangles (N, 5) or ellipses (N, 6) atomically, in the mapping's order."""
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, rows in detections.items():
            rows = np.asarray(rows, dtype=np.float64)
            file.write(f"{name}\n{len(rows)}\n")
            file.writelines(
                " ".join(f"{value:.9g}" for value in row) + "\n" for row in rows.tolist()
            )


def _entries(path: Path) -> Iterable[tuple[str, str, list[list[float]]]]:
    """Yields (name, position for messages, rows) of every image in a file."""
    lines = [line for _, line in numbered_lines(path)]
    while lines and not lines[-1]:
        lines.pop()
    at = 0
    while at < len(lines):
        name = lines[at]
        count = parse_count(lines[at + 1]) if at + 1 < len(lines) else None
        if count is None:
            raise ValueError(f"{path}, line {at + 2}: expected the number of detections on {name}.")
        at += 2
        rows = []
        for number, line in enumerate(lines[at : at + count], start=at + 1):
            try:
                rows.append([float(field) for field in line.split()])
            except ValueError:
                raise _malformed(path, number, line) from None
            if len(rows[-1]) not in _FORMS or len(rows[-1]) != len(rows[0]):
                raise _malformed(path, number, line)
        if len(rows) < count:
            raise ValueError(
                f"{path}: {name} announces {count} rows, the file ends after {len(rows)}."
            )
        yield name, f"{path}, {name} (line {at - 1})", rows
        at += count


def _collect(
    entries: Iterable[tuple[str, str, ArrayLike]], images: Iterable[str]
) -> dict[str, NDArray[np.float64]]:
    known = set(images)
    collected: dict[str, NDArray[np.float64]] = {}
    columns = 0
    for given, where, entry in entries:
        name = image_key(given, known)
        if name not in known:
            raise ValueError(f"{where}: {given!r} is no image of FDDB's folds.")
        if name in collected:
            raise ValueError(f"{where}: {name!r} is there twice.")
        rows = _check(entry, where)
        if len(rows):
            if columns and rows.shape[1] != columns:
                raise ValueError(f"{where}: {_FORMS[rows.shape[1]]!r} after {_FORMS[columns]!r}.")
            columns = rows.shape[1]
        collected[name] = rows
    return collected


def _check(entry: ArrayLike, where: str) -> NDArray[np.float64]:
    rows = np.asarray(entry, dtype=np.float64)
    if rows.size == 0:
        return np.zeros((0, 5))
    if rows.ndim != 2 or rows.shape[1] not in _FORMS:
        raise ValueError(f"{where}: expected rows {_EXPECTED}, got shape {rows.shape}.")
    sizes = rows[:, 2:4] if rows.shape[1] == 5 else rows[:, :2]
    for number, (finite, size) in enumerate(zip(np.all(np.isfinite(rows), axis=1), sizes), start=1):
        if not finite:
            raise ValueError(f"{where}, row {number}: a number that is not finite.")
        if min(size) < 0:
            raise ValueError(f"{where}, row {number}: a negative size.")
    return rows


def _malformed(path: Path, number: int, line: str) -> ValueError:
    return ValueError(f"{path}, line {number}: expected {_EXPECTED}, found {quoted(line.strip())}.")
