"""Images and faces for comparisons; WIDER FACE does not need Detectron2.

A data set is ``widerface_val`` or ``fddb`` (in ``$DETECTRON2_DATASETS``), or labels of any form,
given by their path or as ``FORMAT:LABELS:IMAGES`` (see :mod:`face_d2.data.labels`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from face_d2.data.fddb import read_folds
from face_d2.data.labels import FORMATS, is_notation, read_labels
from face_d2.data.labels.notation import plain_name
from face_d2.data.wider_face import (
    ATTRIBUTES,
    WiderFaceImage,
    image_key,
    listed_images,
    read_annotations,
    split_paths,
)
from face_d2.evaluation.wider_face.ground_truth import (
    WiderFaceGroundTruth,
    ground_truth_from_images,
    read_ground_truth,
)
from face_d2.utils.files import datasets_root

__all__ = ["ImageSet", "read_image_set"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their faces.

    Attributes:
        name: name in the results.
        files: name ``event/name`` -> image file, in the order of ``ground_truth.names``.
        ground_truth: the faces in WIDER FACE's form; for FDDB, the boxes around its ellipses.
        fddb_folds: folder of FDDB's ellipse lists; None for other data.
        image_root: image folder of FDDB; None for other data.
    """

    name: str
    files: Mapping[str, Path]
    ground_truth: WiderFaceGroundTruth
    fddb_folds: Path | None = None
    image_root: Path | None = None

    def subset(self, names: Iterable[str], label: str) -> ImageSet:
        """The same set restricted to images ``event/name``; results also show the label.

        Raises:
            ValueError: an image is not in the set, or none is named.
        """
        name = f"{self.name}, {label}"
        ground_truth = self.ground_truth.subset(names, name)
        return ImageSet(name, {key: self.files[key] for key in ground_truth.names}, ground_truth)


def read_image_set(data: str, images: str | Path | None = None) -> ImageSet:
    """Reads a data set.

    Args:
        data: the data set, see the docstring of the module.
        images: a text file that lists the images to use, one per line, as
            ``event/file.jpg`` or the end of its path.

    Raises:
        FileNotFoundError: a file or image is missing; the message names the first one.
        ValueError: the data set cannot be read, or a listed image is not in it.
    """
    if data == "fddb":
        found = _fddb(datasets_root() / "fddb")
    elif is_notation(data):
        found = _labeled(data)
    elif data in ("widerface_train", "widerface_val"):
        found = _wider_face(data, datasets_root() / "widerface", data.removeprefix("widerface_"))
    else:
        raise ValueError(
            f"data {data!r}: expected widerface_val, widerface_train, fddb, "
            "the path of labels of your own, or FORMAT:LABELS:IMAGES, with FORMAT one of "
            f"{', '.join(FORMATS)}"
        )
    if images is not None:
        found = _restricted(found, Path(images))
    missing = next((file for file in found.files.values() if not file.is_file()), None)
    if missing is not None:
        raise FileNotFoundError(f"{missing}: this image of {data} is not there")
    return found


def _wider_face(name: str, root: Path, split: str) -> ImageSet:
    folder, text = split_paths(root, split)
    images = read_annotations(text)
    files = {image_key(image.name): folder / image.name for image in images}
    ground_truth = ground_truth_from_images(images, name)
    official = root / "eval_tools" / "ground_truth"
    if split == "val" and (official / "wider_face_val.mat").is_file():
        ground_truth = read_ground_truth(official)
        whole = len(files) == len(ground_truth)
        ground_truth = ground_truth.subset(files, None if whole else name)
    return ImageSet(name, files, ground_truth)


def _labeled(data: str) -> ImageSet:
    labels = read_labels(data)
    name = labels.source.stem if labels.source.is_file() else plain_name(data)
    files = {image.name: Path(image.file) for image in labels.images}
    images = [image.as_wider_face() for image in labels.images]
    return ImageSet(name, files, ground_truth_from_images(images, labels.source.name))


def _fddb(root: Path) -> ImageSet:
    folds, pictures = root / "FDDB-folds", root / "originalPics"
    images, files = [], {}
    for image in (image for fold in read_folds(folds) for image in fold):
        corners = image.boxes()
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        # WIDER FACE's names have two parts.
        event, _, file = image.name.rpartition("/")
        name = f"{event.replace('/', '-')}/{file}"
        attributes = np.zeros((len(boxes), len(ATTRIBUTES)), np.int64)
        images.append(WiderFaceImage(f"{name}.jpg", boxes, attributes))
        files[name] = pictures / f"{image.name}.jpg"
    ground_truth = ground_truth_from_images(images, "FDDB, boxes around its ellipses")
    return ImageSet("fddb", files, ground_truth, folds, pictures)


def _restricted(found: ImageSet, listing: Path) -> ImageSet:
    if found.fddb_folds is not None:
        raise ValueError("--images: FDDB is scored on all of its images")
    if not listing.is_file():
        raise FileNotFoundError(f"{listing}: no such list of images")
    names = [_known_name(found, name) for name in listed_images(listing)]
    return found.subset(names, listing.stem)


def _known_name(found: ImageSet, listed: str) -> str:
    """The name ``event/name`` of an image that is listed by that name or by the end of its path."""
    name = image_key(listed, found.files)
    if name in found.files:
        return name
    ending = f"/{listed.removeprefix('./')}"
    named = [key for key, file in found.files.items() if file.as_posix().endswith(ending)]
    return named[0] if len(named) == 1 else listed
