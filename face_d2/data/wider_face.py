"""Reader of WIDER FACE's annotation text. NumPy only.

The official ``wider_face_{train,val}_bbx_gt.txt`` gives, for every image, a line
``event/file.jpg``, a line with the number of faces N, and N lines of ten integers: x, y, w, h and
six attributes. An image without a face has N = 0 or 1 and one line of ten zeros. The list of the
test set has file names only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from face_d2.utils.files import write_text
from face_d2.utils.text_lines import numbered_lines, parse_count, quoted

__all__ = [
    "ATTRIBUTES",
    "WiderFaceImage",
    "annotation_lines",
    "check_distinct",
    "image_key",
    "listed_images",
    "read_annotations",
    "read_file_list",
    "split_paths",
    "unusable_faces",
    "write_annotations",
]

#: The attributes of a face in the order of the file (``invalid`` comes before ``occlusion``).
ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
_COLUMNS = 4 + len(ATTRIBUTES)
_TOO_LARGE = 1e9
_NUMBERS = re.compile(r"[-+0-9.eE \t]+")


@dataclass(frozen=True)
class WiderFaceImage:
    """One image of the list with its faces.

    Attributes:
        name: ``event/file.jpg``, relative to the image folder.
        boxes: (N, 4) float64, XYWH in pixels, as written (degenerate boxes included).
        attributes: (N, 6) int64, columns as :data:`ATTRIBUTES`.
    """

    name: str
    boxes: NDArray[np.float64]
    attributes: NDArray[np.int64]


def split_paths(root: Path, split: str) -> tuple[Path, Path]:
    """Image folder and annotation text of "train" or "val" below the folder of WIDER FACE."""
    text = root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
    return root / f"WIDER_{split}" / "images", text


def read_annotations(path: str | Path, *, any_names: bool = False) -> list[WiderFaceImage]:
    """Reads an annotation file.

    Args:
        path: ``wider_face_train_bbx_gt.txt``, ``wider_face_val_bbx_gt.txt`` or a file of that form.
        any_names: allow image names with any number of folders instead of one event folder.

    Returns:
        The images in the file's order; dummy rows of face-free images are removed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is malformed; the message has the file, the line number and the text.
    """
    lines = _numbered_lines(Path(path))
    images: list[WiderFaceImage] = []
    seen: dict[str, int] = {}
    for number, text in lines:
        if not text:
            continue
        _check_name(path, number, text, any_names)
        if text in seen:
            raise _malformed(path, number, text, f"image already listed in line {seen[text]}")
        seen[text] = number
        images.append(WiderFaceImage(text, *_read_faces(path, text, lines)))
    if not images:
        raise ValueError(f"{path}: lists no image; expected WIDER FACE annotation text.")
    return images


def read_file_list(path: str | Path) -> list[str]:
    """Reads ``wider_face_test_filelist.txt``: one ``event/file.jpg`` per line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not an image name.
    """
    names = []
    for number, text in _numbered_lines(Path(path)):
        if text:
            _check_name(path, number, text)
            names.append(text)
    return names


def listed_images(path: str | Path) -> list[str]:
    """Names in a list of images, one per line; rows of numbers in an annotation text are skipped.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return [line for _, line in numbered_lines(path) if line and not _NUMBERS.fullmatch(line)]


def image_key(name: str, known: Container[str] = ()) -> str:
    """``event/name`` of an image, the name of its prediction file.

    Args:
        name: ``event/file.jpg``; any suffix is removed.
        known: existing keys, which are returned unchanged (``x.png`` is the key of ``x.png.jpg``).
    """
    return name if name in known else name.removesuffix(PurePosixPath(name).suffix)


def check_distinct(
    names: Iterable[str], source: str | Path, key: Callable[[str], str] = image_key
) -> None:
    """Checks that every image has a prediction file of its own.

    Args:
        names: ``event/file.jpg`` of every image.
        source: name of the text or data set.
        key: the name of an image's prediction file.

    Raises:
        ValueError: two images have the same key; the message names them.
    """
    owners: dict[str, str] = {}
    for name in names:
        file = key(name)
        if file in owners:
            raise ValueError(
                f"{source}: {owners[file]!r} and {name!r} differ only in their suffix; give "
                "them different names."
            )
        owners[file] = name


def annotation_lines(image: WiderFaceImage) -> list[str]:
    """The annotation lines of one image, for :func:`read_annotations`."""
    rows = [
        " ".join([*(f"{value:.10g}" for value in box), *map(str, attributes)])
        for box, attributes in zip(image.boxes.tolist(), image.attributes.tolist())
    ]
    return [image.name, str(len(rows)), *(rows or [" ".join("0" * _COLUMNS)])]


def write_annotations(path: str | Path, images: Iterable[WiderFaceImage]) -> None:
    """Writes an annotation file, which :func:`read_annotations` reads."""
    lines = [line for image in images for line in annotation_lines(image)]
    write_text("\n".join(lines) + "\n", path)


def unusable_faces(image: WiderFaceImage) -> NDArray[np.bool_]:
    """(N,) mask of ignored faces: those marked invalid, or with a side of zero or less."""
    degenerate = (image.boxes[:, 2:] <= 0).any(axis=1)
    return degenerate | (image.attributes[:, ATTRIBUTES.index("invalid")] != 0)


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such annotation file; it is part of wider_face_split.zip "
            "(see datasets/README.md)."
        )
    return numbered_lines(path)


def _read_faces(
    path: str | Path, name: str, lines: Iterator[tuple[int, str]]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    number, text = next(lines, (0, ""))
    count = parse_count(text)
    if count is None:
        raise _malformed(path, number, text, f"expected the number of faces of {name}")
    # Row by row, so that a wrong number does not allocate memory for missing faces.
    read: list[list[float]] = []
    for _ in range(max(count, 1)):
        number, text = next(lines, (0, ""))
        try:
            fields = [float(field) for field in text.split()]
        except ValueError:
            fields = []
        if len(fields) != _COLUMNS:
            row = f"{_COLUMNS} numbers, a face of {name}"
            if count == 0:
                row = f"a row of {_COLUMNS} zeros, which WIDER FACE has if {name} has 0 faces"
            raise _malformed(path, number, text, f"expected {row}")
        if not all(abs(field) < _TOO_LARGE for field in fields):  # also finds NaN
            expected = f"expected finite numbers below {_TOO_LARGE:.0e}, a face of {name}"
            raise _malformed(path, number, text, expected)
        read.append(fields)
    rows = np.array(read, dtype=np.float64)
    if not rows[:, :4].any() and len(rows) == 1:  # the dummy row of a face-free image
        rows = rows[:0]
    elif count == 0:
        raise _malformed(path, number, text, f"{name} has 0 faces, so this row should be all zero")
    return rows[:, :4].copy(), rows[:, 4:].astype(np.int64)


def _check_name(path: str | Path, number: int, text: str, any_names: bool = False) -> None:
    parts = text.split("/")
    json = text.startswith(("{", "["))  # json on one line, with a name somewhere in it
    in_event = len(parts) == 2 and all(parts) and ".." not in parts
    if json or not Path(text).suffix or not (any_names or in_event):
        expected = "expected an image name like 0--Parade/picture.jpg, as in WIDER FACE's lists"
        raise _malformed(path, number, text, expected)


def _malformed(path: str | Path, number: int, text: str, what: str) -> ValueError:
    where = f"{path}, line {number}: {quoted(text)}" if number else f"{path}: the file ends early"
    return ValueError(f"{where}: {what}.")
