"""The exchange format for WIDER FACE detections: one text file per image.

``EVENT/NAME.txt`` contains the name of the image, the number of rows, and the rows "x y w h score"
in pixels of the original image. The files are in a folder, a ``.tar``/``.tar.gz`` or a ``.zip``.
Folders above ``EVENT`` and the order of the rows do not matter.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_d2.data.wider_face import check_distinct
from face_d2.utils.files import replaced_file, replaced_folder
from face_d2.utils.text_lines import parse_count, quoted

__all__ = [
    "check_detections",
    "format_detections",
    "parse_detections",
    "read_predictions",
    "write_archive",
    "write_predictions",
]

_ROW = "x y w h score"
_IMAGE_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|webp|gif|tiff?)$", re.IGNORECASE)


def check_detections(
    rows: ArrayLike, where: str, first_line: int | None = None
) -> NDArray[np.float64]:
    """Validates the detections of one image.

    Args:
        rows: (N, 5) x, y, w, h, score; an empty sequence has zero detections.
        where: name of the file or image in error messages.
        first_line: number of the text line with row 1, for error messages.

    Returns:
        (N, 5) float64.

    Raises:
        ValueError: the shape is wrong, a number is NaN or infinite, or a width or height is
            negative.
    """
    rows = np.asarray(rows, dtype=np.float64)
    if rows.size == 0:
        return np.zeros((0, 5))
    if rows.ndim != 2 or rows.shape[1] != 5:
        raise ValueError(f"{where}: expected an array (N, 5) of {_ROW}, got shape {rows.shape}.")
    finite = np.isfinite(rows).all(axis=1)
    bad = ~finite | (rows[:, 2:4] < 0).any(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        line = "" if first_line is None else f" (line {first_line + row})"
        what = "a negative width or height" if finite[row] else "a number that is not finite"
        values = " ".join(f"{value:g}" for value in rows[row])
        raise ValueError(f"{where}, row {row + 1}{line}: {what} in '{values}' ({_ROW}).")
    return rows


def parse_detections(text: str, where: str) -> NDArray[np.float64]:
    """Parses the text of one file; error messages name it as ``where``.

    Returns:
        (N, 5) float64 x, y, w, h, score in the order of the file.

    Raises:
        ValueError: the text has another form or an invalid number; the message names file and line.
    """
    lines = text.rstrip().split("\n")
    count = parse_count(lines[1]) if len(lines) > 1 else None
    if count is None:
        raise ValueError(
            f"{where}, line 2: expected the image's name, the number of rows, rows {_ROW}; a set "
            "of predictions holds no other .txt file."
        )
    rows = [line.split() for line in lines[2:]]
    if count != len(rows):
        raise ValueError(f"{where}, line 2: announces {count} rows, but {len(rows)} follow.")
    try:
        values = np.array(rows, dtype=np.float64).reshape(count, -1 if count else 5)
    except ValueError:
        raise _malformed_row(rows, where) from None
    if values.shape[1] != 5:
        raise _malformed_row(rows, where)
    return check_detections(values, where, first_line=3)


def read_predictions(path: str | Path) -> dict[str, NDArray[np.float64]]:
    """Reads a folder or an archive of text files.

    Args:
        path: a folder, ``.tar``, ``.tar.gz``, ``.tgz`` or ``.zip``.

    Returns:
        ``{"event/name": (N, 5) float64 x, y, w, h, score}``.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ValueError: the file is of another kind or contains no text file, an image occurs twice, or
            a text is malformed; the message names the file and line.
    """
    path = Path(path)
    predictions: dict[str, NDArray[np.float64]] = {}
    for member, text in _texts(path):
        parts = PurePosixPath(member).parts
        if len(parts) < 2:
            raise ValueError(f"{path}: {member} lies in no event folder; expected EVENT/{member}.")
        name = f"{parts[-2]}/{parts[-1].removesuffix('.txt')}"
        if name in predictions:
            raise ValueError(f"{path}: {name}.txt is there twice, in different folders.")
        predictions[name] = parse_detections(text, f"{path}: {member}")
    if not predictions:
        raise ValueError(f"{path}: no EVENT/NAME.txt in it.")
    return predictions


def format_detections(name: str, detections: ArrayLike) -> str:
    """The text of the file of an image ``event/name``.

    ``detections`` is (N, 5) x, y, w, h, score; 9 significant digits represent float32 exactly.
    """
    rows = np.asarray(detections, dtype=np.float64).reshape(-1, 5)
    body = ("%.9g %.9g %.9g %.9g %.9g\n" * len(rows)) % tuple(rows.ravel().tolist())
    return f"{PurePosixPath(name).name}\n{len(rows)}\n{body}"


def write_predictions(predictions: Mapping[str, ArrayLike], folder: str | Path) -> Path:
    """Writes a folder of text files, which replaces an existing one when everything is written.

    Args:
        predictions: ``{"event/name": (N, 5) x, y, w, h, score}``; image suffixes are removed.
        folder: the folder to write.

    Returns:
        ``folder``.

    Raises:
        ValueError: detections are invalid (see :func:`check_detections`), or two names differ only
            in the image suffix.
    """
    check_distinct(predictions, folder, key=lambda given: _IMAGE_SUFFIX.sub("", given))
    with replaced_folder(folder) as temporary:
        for given, rows in predictions.items():
            name = _IMAGE_SUFFIX.sub("", given)
            write_image(temporary, name, check_detections(rows, name))
    return Path(folder)


def is_image_name(name: object) -> bool:
    """Whether a name has the form ``event/name``, which a prediction file needs."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    return len(parts) == 2 and not {"..", "/"} & set(parts)


def write_image(folder: Path, name: str, detections: ArrayLike) -> None:
    """Writes ``folder/event/name.txt``."""
    if not is_image_name(name):
        raise ValueError(f"image name {name!r}: expected 'event/name'.")
    file = folder / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(format_detections(name, detections), encoding="utf-8")


def write_archive(folder: str | Path, archive: str | Path) -> Path:
    """Packs a folder of text files into a ``.zip`` (``EVENT/NAME.txt`` at its root), atomically."""
    folder = Path(folder)
    with (
        replaced_file(archive) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for file in sorted(folder.glob("*/*.txt")):
            target.write(file, file.relative_to(folder).as_posix())
    return Path(archive)


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (relative path, content) of every prediction file."""
    if path.is_dir():
        for file in sorted(path.rglob("*.txt")):
            # The folder may itself be an event folder.
            member = file.relative_to(path.parent).as_posix()
            if not _hidden(file.relative_to(path).as_posix()):
                yield member, _decode(file.read_bytes(), path, member)
    elif not path.exists():
        raise FileNotFoundError(f"{path}: no such folder or archive of predictions.")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".txt") and not _hidden(member):
                    yield _with_slashes(member), _decode(archive.read(member), path, member)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for entry in archive:
                if entry.isfile() and entry.name.endswith(".txt") and not _hidden(entry.name):
                    content = archive.extractfile(entry)
                    assert content is not None  # it is a regular file
                    name = _with_slashes(entry.name)
                    yield name, _decode(content.read(), path, entry.name)
    else:
        raise ValueError(f"{path}: neither a folder nor a .tar, .tar.gz or .zip archive.")


def _decode(content: bytes, path: Path, member: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: {member} is not a text file.") from None


def _with_slashes(member: str) -> str:
    """A member's path; some archivers on Windows write it with backslashes."""
    return member.replace("\\", "/")


def _hidden(member: str) -> bool:
    """Whether a file is hidden: macOS' ``__MACOSX/`` and ``._*``, and other dot files."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(member).parts)


def _malformed_row(rows: list[list[str]], where: str) -> ValueError:
    """The error about the first row that is not five numbers; there is one."""
    number, row = next(line for line in enumerate(rows, start=3) if not _is_row(line[1]))
    found = quoted(" ".join(row))
    return ValueError(f"{where}, line {number}: expected '{_ROW}', found {found}.")


def _is_row(row: list[str]) -> bool:
    try:
        return len([float(field) for field in row]) == 5
    except ValueError:
        return False
