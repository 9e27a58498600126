"""What a set of labels holds, and what had to be changed or left out to read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_d2.data.wider_face import ATTRIBUTES, WiderFaceImage

__all__ = ["FINDINGS", "Findings", "LabeledImage", "Labels", "RawFace", "RawImage", "RawLabels"]

_EXAMPLES = 3
_TOO_LARGE = 1e9

#: What reading can find, in words. The log and the commands print them with their number.
FINDINGS = {
    "windows": "names of images are written with backslashes",
    "unicode": "names of images are written in another Unicode form than the files' names",
    "case": "names of images are written in other upper and lower case than the files' names",
    "elsewhere": "names are paths of another machine; the images were found by their last parts",
    "listed_twice": "images are listed more than once; their faces were put together",
    "unreadable": "images cannot be read",
    "unlabeled": "images have no label file and are background",
    "left_out": "images have no label file and are left out",
    "annotators": "images were labeled more than once; the newest labels were taken",
    "turned": "boxes of negative width or height were turned round",
    "no_area": "boxes without area are ignored: neither faces nor background",
    "repeated": "boxes repeat another one of their image and were dropped",
    "outside": "boxes reach beyond their image; are they [x, y, width, height]?",
    "around": "outlines or turned boxes were replaced by the upright boxes around them",
    "no_box": "labels have no box or outline (points, lines, masks) and were dropped",
    "no_label": "boxes have no label and were taken for faces",
    "taken": "labels were taken for faces although none is called face",
    "other_labels": "labels of other kinds are background",
    "predictions": "predictions of a model in the export were not read",
}
#: Findings that tell how the labels are written; nothing was lost or changed.
_HARMLESS = ("windows", "unicode", "case", "elsewhere", "unlabeled", "around", "taken", "no_label")


class Findings:
    """Counts what was found, by the keys of ``FINDINGS``, with the first examples."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, example: str) -> None:
        """Counts one more.

        Raises:
            KeyError: when there is no such kind.
        """
        FINDINGS[kind]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES and example not in examples:
            examples.append(example)

    @property
    def changed(self) -> bool:
        """Whether something was changed or left out."""
        return any(kind not in _HARMLESS for kind in self.counts)

    def lines(self, of: int) -> list[str]:
        """One line for each kind: number, words, examples.

        Args:
            of: number of boxes, which the boxes that reach beyond their image are compared with.
        """
        return [
            f"{f'{count} of {of}' if kind == 'outside' else count} {FINDINGS[kind]}, for example "
            f"{'; '.join(self._examples[kind])}"
            for kind, count in sorted(
                self.counts.items(), key=lambda item: [*FINDINGS].index(item[0])
            )
        ]


@dataclass(frozen=True)
class LabeledImage:
    """One image and its faces.

    Attributes:
        file: absolute path.
        name: ``folder/name`` without an ending, one for each image: its ``image_id``, by which
            prediction files go.
        height, width: pixels of the image as it is shown; 0 when its header cannot be read and the
            labels do not say.
        boxes: (N, 4) float64 XYWH pixels.
        ignored: (N,) bool, faces that are neither positive nor background.
        attributes: (N, 6) int64 as ``wider_face.ATTRIBUTES``; None where the labels have none.
    """

    file: str
    name: str
    height: int
    width: int
    boxes: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    attributes: NDArray[np.int64] | None = None

    def as_wider_face(self, name: str | None = None) -> WiderFaceImage:
        """The image in WIDER FACE's form; ignored faces are ``invalid``.

        Args:
            name: in place of :attr:`name` with the ending of the file.
        """
        attributes = self.attributes
        if attributes is None:
            attributes = np.zeros((len(self.boxes), len(ATTRIBUTES)), np.int64)
        attributes = attributes.copy()
        attributes[:, ATTRIBUTES.index("invalid")] = self.ignored
        return WiderFaceImage(
            name or self.name + (Path(self.file).suffix or ".jpg"), self.boxes, attributes
        )


@dataclass(frozen=True)
class Labels:
    """A labeled set of images.

    Attributes:
        format: name of the form, a key of ``FORMATS``.
        source: file or folder of the labels.
        image_root: folder of the images.
        images: by their files' paths.
        findings: what was changed or left out.
    """

    format: str
    source: Path
    image_root: Path
    images: list[LabeledImage] = field(repr=False)
    findings: Findings = field(repr=False)

    @property
    def faces(self) -> int:
        """How many faces are labeled, those to ignore included."""
        return sum(len(image.boxes) for image in self.images)

    @property
    def ignored(self) -> int:
        """How many of them are to be ignored."""
        return sum(int(image.ignored.sum()) for image in self.images)

    def summary(self) -> str:
        """How much there is, in a line, and a line for everything that was found."""
        empty = sum(not len(image.boxes) for image in self.images)
        head = (
            f"{self.source} ({self.format}), images in {self.image_root}: {len(self.images):,} "
            f"images, {empty:,} of them without a face; {self.faces:,} faces, {self.ignored:,} of "
            "them ignored"
        )
        return "\n  ".join([head, *self.findings.lines(self.faces)])

    def relative_name(self, image: LabeledImage) -> str:
        """The image's path below ``image_root``; its absolute path when it is not there."""
        path = Path(image.file)
        root = self.image_root.absolute()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


@dataclass(frozen=True)
class RawFace:
    """One label as it is written.

    Attributes:
        box: x, y, width, height.
        label: its class; None in forms that label faces alone.
        ignored: whether the labels say that it does not count.
        attributes: WIDER FACE's six, where there are any.
    """

    box: tuple[float, float, float, float]
    label: str | None = None
    ignored: bool = False
    attributes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RawImage:
    """One image as the labels have it.

    Attributes:
        name: as it is written, for messages.
        candidates: names to look for, in order; see :meth:`.locate.ImageFolder.find`.
        faces: its labels.
        size: (height, width) that the labels state, or None.
        fractions: whether boxes are in fractions of the image's sides, otherwise in pixels.
    """

    name: str
    candidates: tuple[str, ...]
    faces: list[RawFace]
    size: tuple[int, int] | None = None
    fractions: bool = False


@dataclass(frozen=True)
class RawLabels:
    """What a form's reader gives.

    Attributes:
        images: at least one.
        roots: folders in which the images may be, the likeliest first.
        categories: names of the classes, None in forms that label faces alone.
        one_file_each: whether every image has a file of labels, and images without one, in the same
            folders, are left out.
    """

    images: list[RawImage]
    roots: Sequence[Path]
    categories: Sequence[str] | None = None
    one_file_each: bool = False


def finite(values: Iterable[object], where: str) -> list[float]:
    """Numbers of a label file.

    Raises:
        ValueError: naming ``where``, when one is no number, not finite, or absurdly large.
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
    """(height, width) of an image as the labels state it; None where they state none or 0.

    Raises:
        ValueError: naming ``where``, when it is no size.
    """
    if height in (None, "") or width in (None, ""):
        return None
    sides = [int(side) for side in finite([height, width], where)]
    return (sides[0], sides[1]) if min(sides) > 0 else None


def around(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    """The upright XYWH box around points."""
    xs, ys = zip(*points)
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
