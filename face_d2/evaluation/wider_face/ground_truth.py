"""WIDER FACE ground truth: the faces of a set of images, and which of them count.

The benchmark's tool reads four MATLAB files. ``wider_face_val.mat`` lists images, boxes and
attributes; ``wider_{easy,medium,hard}_val.mat`` list, for each image, the 1-based indices of the
faces that count in a setting. All other faces are *ignored*: a detection on one of them is neither
right nor wrong. The lists were made from fractional boxes that are no longer distributed, so they
cannot be computed exactly from the annotation text; :func:`ground_truth_from_images` approximates
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from face_d2.data.labels.notation import is_labels_of_another_format, read_labels
from face_d2.data.wider_face import (
    ATTRIBUTES,
    WiderFaceImage,
    check_distinct,
    image_key,
    read_annotations,
    unusable_faces,
)

__all__ = [
    "MIN_HEIGHT",
    "SETTINGS",
    "WiderFaceGroundTruth",
    "ground_truth_from_images",
    "read_ground_truth",
]

#: A face counts in a setting if its height is above this number of pixels. The official lists
#: follow this rule, applied to the boxes of 2016 before they were rounded.
MIN_HEIGHT = {"easy": 50, "medium": 30, "hard": 10}
SETTINGS = tuple(MIN_HEIGHT)

_FACES_FILE = "wider_face_val.mat"
_SETTING_FILE = "wider_{}_val.mat"


@dataclass(frozen=True, eq=False)
class WiderFaceGroundTruth:
    """The faces of I images, concatenated (F faces).

    Attributes:
        names: I names ``event/name`` without extension.
        boxes: (F, 4) float64, XYWH in pixels, as annotated.
        starts: (I + 1,) int64; image i has the faces ``starts[i]:starts[i + 1]``.
        kept: setting -> (F,) bool, the faces that count in it.
        attributes: (F, 6) int64, columns as :data:`face_d2.data.wider_face.ATTRIBUTES`, or None.
        source: description of the source of faces and lists; part of every result.
        images: description of the images; part of every result.
    """

    names: tuple[str, ...]
    boxes: NDArray[np.float64]
    starts: NDArray[np.int64]
    kept: dict[str, NDArray[np.bool_]]
    attributes: NDArray[np.int64] | None
    source: str
    images: str

    def __len__(self) -> int:
        return len(self.names)

    def faces_of(self, index: int) -> slice:
        """The slice of the face arrays for image number ``index``."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def image_of_face(self) -> NDArray[np.int64]:
        """(F,) index of the image of each face."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def subset(self, images: Iterable[str], name: str | None = None) -> WiderFaceGroundTruth:
        """The same ground truth restricted to some images.

        Args:
            images: names ``event/name`` (image suffixes are removed); repeated names count once.
            name: name of the subset in results, e.g. "WIDER val, 80/20 fold".

        Raises:
            ValueError: an image is not in the ground truth, or the subset is empty.
        """
        index_of = {image: index for index, image in enumerate(self.names)}
        wanted = list(dict.fromkeys(image_key(image, index_of) for image in images))
        unknown = [image for image in wanted if image not in index_of]
        if unknown:
            raise ValueError(
                f"{len(unknown)} of the images asked for are not in the ground truth "
                f"({self.source}), the first: {unknown[0]!r}. Names are 'event/name'."
            )
        if not wanted:
            raise ValueError("The subset of images to evaluate is empty.")
        chosen = np.array([index_of[image] for image in wanted])
        counts = np.diff(self.starts)[chosen]
        faces = np.concatenate([np.arange(*self.starts[i : i + 2]) for i in chosen])
        whole = len(wanted) == len(self)
        label = self.images if whole else f"{len(wanted)} of {len(self)} images"
        return WiderFaceGroundTruth(
            names=tuple(wanted),
            boxes=self.boxes[faces],
            starts=_starts(counts),
            kept={setting: mask[faces] for setting, mask in self.kept.items()},
            attributes=None if self.attributes is None else self.attributes[faces],
            source=self.source,
            images=label if name is None else f"{name} ({label})",
        )


def read_ground_truth(path: str | Path) -> WiderFaceGroundTruth:
    """Reads the official folder of .mat files, or other labels as an approximation.

    Args:
        path: a folder with ``wider_face_val.mat`` and ``wider_{easy,medium,hard}_val.mat``
            (``eval_tools/ground_truth`` of the official download), one of these files or the folder
            above ``eval_tools``; a ``*_bbx_gt.txt``, which needs no images; or other labels by
            their notation, see :func:`face_d2.data.labels.read_labels`.

    Raises:
        FileNotFoundError: the path, one of the four files, or an image of the labels is missing.
        ValueError: the files are inconsistent, or labels are malformed.
    """
    text, path = str(path), Path(path)
    if path.suffix == ".mat" and path.is_file():
        path = path.parent
    if (path / "eval_tools" / "ground_truth").is_dir():
        path = path / "eval_tools" / "ground_truth"
    if is_labels_of_another_format(text):
        labels = read_labels(text)
        return ground_truth_from_images([i.as_wider_face() for i in labels.images], text)
    if path.is_file():
        return ground_truth_from_images(read_annotations(path), path.name)
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such ground truth; expected the folder of the official .mat files "
            "(eval_tools/ground_truth), an annotation text (*_bbx_gt.txt), or labels as "
            "FORMAT:LABELS:IMAGES."
        )
    return _read_official(path)


def ground_truth_from_images(images: Sequence[WiderFaceImage], source: str) -> WiderFaceGroundTruth:
    """Approximates the official lists by face height (> 50 / 30 / 10 px), without unusable faces.

    With the validation text of 2017, whose boxes are rounded, 7,127 / 13,083 / 31,147 faces count,
    and with the official lists 7,211 / 13,319 / 31,958. The result says that it is an
    approximation. As in the official files, an image without faces gets a dummy face (0, 0, 0, 0),
    which never counts: without any face, the protocol would skip the image and its false positives.

    Args:
        images: the result of :func:`face_d2.data.wider_face.read_annotations`.
        source: name of the text or data set.

    Raises:
        ValueError: there is no image, or the names of two differ only in the suffix.
    """
    if not images:
        raise ValueError(f"{source}: no image to evaluate on.")
    check_distinct((image.name for image in images), source)
    no_attributes = np.zeros((1, len(ATTRIBUTES)), dtype=np.int64)
    dummy = WiderFaceImage("", np.zeros((1, 4)), no_attributes)
    filled = [image if len(image.boxes) else dummy for image in images]
    boxes = np.concatenate([image.boxes for image in filled]).astype(np.float64)
    usable = ~np.concatenate([unusable_faces(image) for image in filled])
    return WiderFaceGroundTruth(
        names=tuple(image_key(image.name) for image in images),
        boxes=boxes,
        starts=_starts([len(image.boxes) for image in filled]),
        kept={setting: usable & (boxes[:, 3] > height) for setting, height in MIN_HEIGHT.items()},
        attributes=np.concatenate([image.attributes for image in filled]),
        source=f"{source}, lists approximated by face height > 50/30/10 px",
        images=f"all {len(images)} images",
    )


def _read_official(folder: Path) -> WiderFaceGroundTruth:
    files = [folder / _FACES_FILE] + [folder / _SETTING_FILE.format(name) for name in SETTINGS]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {', '.join(missing)} missing; the folder must hold the four .mat files of "
            "the official evaluation tools (eval_tools/ground_truth)."
        )
    faces = loadmat(files[0])
    try:
        names, rows = _images_of(faces), _cells(faces["face_bbx_list"])
        attributes = [_cells(faces[f"{name}_label_list"]) for name in ATTRIBUTES]
    except KeyError as error:
        raise ValueError(
            f"{files[0]}: no variable {error} in it; is it the official file?"
        ) from None
    boxes = [np.asarray(cell, dtype=np.float64).reshape(-1, 4) for cell in rows]
    counts = [len(image_boxes) for image_boxes in boxes]
    return WiderFaceGroundTruth(
        names=names,
        boxes=np.concatenate(boxes),
        starts=_starts(counts),
        kept={
            setting: _kept_faces(file, names, counts) for setting, file in zip(SETTINGS, files[1:])
        },
        attributes=np.stack(
            [np.concatenate([cell.ravel() for cell in cells]) for cells in attributes], axis=1
        ).astype(np.int64),
        source=_describe_official(files[0], np.concatenate(boxes)),
        images=f"all {len(names)} images",
    )


def _kept_faces(file: Path, names: tuple[str, ...], counts: list[int]) -> NDArray[np.bool_]:
    """(F,) mask from the 1-based index lists of one setting."""
    setting = loadmat(file)
    if "gt_list" not in setting:
        raise ValueError(f"{file}: no variable 'gt_list' in it; is it the official file?")
    if _images_of(setting) != names:
        raise ValueError(f"{file}: lists other images than {_FACES_FILE} in the same folder.")
    kept = np.zeros(sum(counts), dtype=bool)
    for start, count, name, cell in zip(_starts(counts), counts, names, _cells(setting["gt_list"])):
        indices = np.asarray(cell).ravel().astype(np.int64)
        if len(indices) and not (indices.min() >= 1 and indices.max() <= count):
            raise ValueError(f"{file}: {name} lists a face beyond its {count} faces.")
        kept[start + indices - 1] = True
    return kept


def _describe_official(file: Path, boxes: NDArray[np.float64]) -> str:
    # The boxes of 2016 are fractional and those of March 2017 are rounded; the lists are the same.
    version = "2017 boxes" if np.array_equal(boxes, np.round(boxes)) else "2016 boxes"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return f"official .mat lists ({version}, {file.name} sha256 {digest})"


def _images_of(mat: dict[str, NDArray[np.object_]]) -> tuple[str, ...]:
    names = []
    for event, files in zip(mat["event_list"].ravel(), mat["file_list"].ravel()):
        names += [f"{event.item()}/{file.item()}" for file in files.ravel()]
    return tuple(names)


def _cells(variable: NDArray[np.object_]) -> list[NDArray[np.generic]]:
    """Flattens MATLAB's cell array of cell arrays (events, then images) into one list."""
    return [cell for event in variable.ravel() for cell in event.ravel()]


def _starts(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype(np.int64)
