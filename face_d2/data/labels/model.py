"""A set of labels, and the findings about it: what was changed or left out when it was read."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_d2.data.wider_face import ATTRIBUTES, WiderFaceImage, image_key, unusable_faces

__all__ = ["FINDINGS", "Findings", "LabeledImage", "Labels", "RawFace", "RawImage", "RawLabels"]

_EXAMPLES = 3
_TOO_LARGE = 1e9

#: The possible findings. The log and the commands print them after their number.
FINDINGS = {
    "windows": "image names contain backslashes",
    "unicode": "image names have another Unicode form than the file names",
    "case": "image names differ from the file names in upper and lower case",
    "elsewhere": "image names are paths of another machine; files were found by their last parts",
    "listed_twice": "images are listed more than once; their faces were merged",
    "unreadable": "images cannot be read",
    "unlabeled": "images have no label file and are background",
    "left_out": "images have no label file and are left out",
    "no_annotation": "images have no annotation (not labeled, or skipped) and are left out",
    "annotators": "images were labeled more than once; the newest labels were taken",
    "turned": "boxes of negative width or height were flipped",
    "no_area": "boxes without area are ignored: neither faces nor background",
    "repeated": "boxes occur twice in their image; the second one was dropped",
    "outside": "boxes reach beyond their image; are they [x, y, width, height]?",
    "around": "outlines, masks or rotated boxes were replaced by the upright boxes around them",
    "no_box": "labels have no box or outline (points, lines) and were dropped",
    "no_label": "boxes have no label and were read as faces",
    "taken": "labels were read as faces although their class is not called face",
    "other_labels": "labels of other classes are background",
    "predictions": "predictions of a model in the export were not read",
}
#: Findings about names only, which lose or change nothing.
_HARMLESS = ("windows", "unicode", "case", "elsewhere", "unlabeled", "around", "taken", "no_label")


class Findings:
    """Counts findings by the keys of ``FINDINGS`` and keeps the first examples."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Counts findings of a kind; a kind that does not exist is a KeyError."""
        FINDINGS[kind]
        self.counts[kind] += count
        examples = self._examples[kind]
        if len(examples) < _EXAMPLES and example not in examples:
            examples.append(example)

    @property
    def changed(self) -> bool:
        """Whether something was changed or left out when reading."""
        return any(kind not in _HARMLESS for kind in self.counts)

    def lines(self, of: int) -> list[str]:
        """One line per kind, with number (of all boxes), description and examples."""
        lines = []
        for kind, description in FINDINGS.items():
            if count := self.counts[kind]:
                number = f"{count} of {of}" if kind == "outside" else count
                examples = "; ".join(self._examples[kind])
                lines.append(f"{number} {description}, for example {examples}")
        return lines


@dataclass(frozen=True)
class LabeledImage:
    """One image and its faces.

    Attributes:
        file: absolute path.
        name: ``folder/name`` without a suffix, unique; it is the ``image_id`` and the name of the
            prediction file.
        height, width: size of the upright image in pixels; 0 if its header cannot be read and the
            labels do not contain the size.
        boxes: (N, 4) float64 XYWH pixels.
        ignored: (N,) bool, faces that are neither positive nor background.
        attributes: (N, 6) int64 as ``wider_face.ATTRIBUTES``; None if the labels have none.
    """

    file: str
    name: str
    height: int
    width: int
    boxes: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    attributes: NDArray[np.int64] | None = None

    def each_face(self) -> Iterator[tuple[list[float], bool, dict[str, int]]]:
        """Box, whether it is ignored, and attributes by name ({} without any) of every face."""
        attributes: list[dict[str, int]] = [{}] * len(self.boxes)
        if self.attributes is not None:
            attributes = [dict(zip(ATTRIBUTES, row)) for row in self.attributes.tolist()]
        return zip(self.boxes.tolist(), self.ignored.tolist(), attributes)

    @classmethod
    def from_wider_face(
        cls, image: WiderFaceImage, image_root: Path, size: tuple[int, int]
    ) -> LabeledImage:
        """An image of a WIDER FACE list; invalid and degenerate faces are ignored."""
        file = str((image_root / image.name).absolute())
        ignored = unusable_faces(image)
        return cls(file, image_key(image.name), *size, image.boxes, ignored, image.attributes)

    def as_wider_face(self, name: str | None = None) -> WiderFaceImage:
        """The image in WIDER FACE's format; ignored faces are ``invalid``.

        Without a name, it is :attr:`name` with the suffix of the file.
        """
        attributes = np.zeros((len(self.boxes), len(ATTRIBUTES)), np.int64)
        if self.attributes is not None:
            attributes[:] = self.attributes
        attributes[:, ATTRIBUTES.index("invalid")] = self.ignored
        return WiderFaceImage(
            name or self.name + (Path(self.file).suffix or ".jpg"), self.boxes, attributes
        )


@dataclass(frozen=True)
class Labels:
    """A labeled set of images.

    Attributes:
        format: name of the format, a key of ``FORMATS``.
        source: file or folder of the labels.
        image_root: folder of the images.
        images: sorted by the paths of their files.
        findings: what was changed or left out when reading.
    """

    format: str
    source: Path
    image_root: Path
    images: list[LabeledImage] = field(repr=False)
    findings: Findings = field(repr=False)

    @property
    def faces(self) -> int:
        """Number of labeled faces, including ignored ones."""
        return sum(len(image.boxes) for image in self.images)

    @property
    def ignored(self) -> int:
        """Number of ignored faces."""
        return sum(int(image.ignored.sum()) for image in self.images)

    def summary(self) -> str:
        """A line with the numbers of images and faces, and a line per finding."""
        empty = sum(not len(image.boxes) for image in self.images)
        head = (
            f"{self.source} ({self.format}), images in {self.image_root}: {len(self.images):,} "
            f"images, {empty:,} of them without a face; {self.faces:,} faces, {self.ignored:,} of "
            "them ignored"
        )
        return "\n  ".join([head, *self.findings.lines(self.faces)])

    def relative_name(self, image: LabeledImage) -> str:
        """The image's path relative to ``image_root``; its absolute path if it is elsewhere."""
        path = Path(image.file)
        root = self.image_root.absolute()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


@dataclass(frozen=True)
class RawFace:
    """One label as written in the file.

    Attributes:
        box: x, y, width, height.
        label: its class; None in formats that contain only faces.
        ignored: whether the label is marked as ignored.
        attributes: the six of WIDER FACE, or None.
    """

    box: tuple[float, float, float, float]
    label: str | None = None
    ignored: bool = False
    attributes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RawImage:
    """One image as described by the labels.

    Attributes:
        name: its name in the labels, for messages.
        candidates: file names to search for, in order; see :meth:`.locate.ImageFolder.find`.
        faces: its labels.
        size: (height, width) according to the labels, or None.
        fractions: True for boxes in fractions of the image's sides, False for pixels.
    """

    name: str
    candidates: tuple[str, ...]
    faces: list[RawFace]
    size: tuple[int, int] | None = None
    fractions: bool = False


@dataclass(frozen=True)
class RawLabels:
    """The output of a label reader.

    Attributes:
        images: at least one.
        roots: folders that may contain the images, the most likely one first.
        categories: names of the classes, empty for those of the faces; None in formats that contain
            only faces.
        one_file_each: whether every image has its own label file, so that images without one are
            left out.
    """

    images: list[RawImage]
    roots: Sequence[Path]
    categories: Sequence[str] | None = None
    one_file_each: bool = False


def finite(values: Iterable[object], where: str) -> list[float]:
    """Converts values of a label file to finite numbers.

    Raises:
        ValueError: a value is not a number, not finite, or too large; the message names ``where``.
    """
    listed = list(values)
    try:
        numbers = [float(value) for value in listed]  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: expected numbers, found {str(listed)[:80]}.") from None
    if not all(math.isfinite(n) and abs(n) < _TOO_LARGE for n in numbers):
        raise ValueError(f"{where}: expected finite numbers below 1e9, found {str(listed)[:80]}.")
    return numbers


def stated_size(height: object, width: object, where: str) -> tuple[int, int] | None:
    """(height, width) of an image according to the labels; None if it is missing or 0.

    Raises:
        ValueError: the values are not a size; the message names ``where``.
    """
    if height in (None, "") or width in (None, ""):
        return None
    sides = [int(side) for side in finite([height, width], where)]
    return (sides[0], sides[1]) if min(sides) > 0 else None


def around(points: Iterable[Sequence[float]]) -> tuple[float, float, float, float]:
    """The upright XYWH box around points."""
    xs, ys = zip(*points)
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
