"""The pictures to train on and those to validate on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
from detectron2.data import DatasetCatalog, MetadataCatalog

from face_d2.data.catalog import register_data_sets
from face_d2.data.labels import Labels, is_notation, read_labels
from face_d2.data.labels.write import write_coco, write_wider

__all__ = ["PARTS", "TrainingData", "in_validation", "read_training_data"]

#: One picture in so many is for validation.
PARTS = 5
_EXAMPLES = 3


@dataclass(frozen=True)
class TrainingData:
    """Two data sets by their notation, both readable.

    Attributes:
        train, val: for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        train_images, val_images: how many pictures each has.
        description: sentences about what was read, cut off or is doubtful.
        digest: changes when a picture or a face changes its place or its part.
    """

    train: str
    val: str
    train_images: int
    val_images: int
    description: tuple[str, ...]
    digest: str


def in_validation(name: str) -> bool:
    """Whether a picture is for validation when no data set for it is given.

    ``name`` is the path below the folder of the images, with ``/``. The rule is that of
    ``datasets/split_widerface.py``: the SHA-1 of the name, read as a number, is divisible by 5. A
    picture therefore stays where it is when others are added.
    """
    return int(hashlib.sha1(name.encode()).hexdigest(), 16) % PARTS == 0


def read_training_data(data: str, val: str | None, folder: Path) -> TrainingData:
    """Reads the labels and cuts off the validation part where none is given.

    Args:
        data: notation of the pictures to train on, see :mod:`face_d2.data.catalog`.
        val: notation of those to validate on; None cuts ``data`` by name and writes both lists.
        folder: where the two lists are written.

    Raises:
        FileNotFoundError: labels or pictures are missing; how many, with examples.
        ValueError: the labels are malformed, there is no face to train on or to validate on, or no
            picture falls into one of the parts.
    """
    sentences: list[str] = []
    if val is None:
        labels = read_labels(_labels_notation(data))
        sentences += labels.summary().split("\n  ")
        data, val = _cut(labels, folder)
        sentences.append(
            f"One picture in {PARTS} is for validation, chosen by a hash of its name, so that "
            "adding pictures moves none; --val gives others."
        )
    register_data_sets([data, val])
    counts = []
    digest = hashlib.sha256()
    for name, purpose in ((data, "train"), (val, "validate")):
        records = DatasetCatalog.get(name)
        if MetadataCatalog.get(name).get("annotation_file", "") is None:
            raise ValueError(f"{name} has no labels to {purpose} on; give a data set with labels.")
        faces = 0
        for record in records:
            faces += sum(not a["iscrowd"] for a in record["annotations"])
            boxes = [(a["bbox"], a["iscrowd"]) for a in record["annotations"]]
            digest.update(f"{purpose} {record['image_id']} {boxes}\n".encode())
        if not faces:
            raise ValueError(
                f"{name}: there is no face to {purpose} on in {len(records)} pictures; give "
                "pictures with labeled faces."
            )
        counts.append(len(records))
        sentences.append(f"{len(records):,} pictures with {faces:,} faces to {purpose} on: {name}")
    sentences += _in_both(data, val)
    train_images, val_images = counts
    return TrainingData(
        train=data,
        val=val,
        train_images=train_images,
        val_images=val_images,
        description=tuple(sentences),
        digest=digest.hexdigest()[:16],
    )


def _labels_notation(data: str) -> str:
    """The notation of labels that a registered name stands for."""
    if is_notation(data):
        return data
    register_data_sets([data])  # says what there is, if it is neither
    metadata = MetadataCatalog.get(data)
    if not metadata.get("annotation_file") or not metadata.get("image_root"):
        raise ValueError(
            f"{data} cannot be split into training and validation pictures, because it is not "
            "registered with an annotation text; give the validation pictures by --val."
        )
    if not Path(metadata.annotation_file).is_file():
        DatasetCatalog.get(data)  # generates the set, or says where its files should be
    return f"wider:{metadata.annotation_file}:{metadata.image_root}"


def _cut(labels: Labels, folder: Path) -> tuple[str, str]:
    """Writes the labels of both parts; returns their notations."""
    chosen = [in_validation(labels.relative_name(image)) for image in labels.images]
    if not 0 < sum(chosen) < len(chosen):
        raise ValueError(
            f"{labels.source}: {sum(chosen)} of {len(chosen)} pictures were chosen for validation, "
            "by a hash of their names, but training and validation need at least one each; give "
            "more pictures, or the validation pictures by --val."
        )
    # A json has to state the size of every image; an unreadable image has none.
    sized = all(image.height for image in labels.images)
    write, suffix = (write_coco, ".json") if sized else (write_wider, ".txt")
    notations = []
    for name, wanted in (("train", False), ("val", True)):
        images = [i for i, is_val in zip(labels.images, chosen) if is_val == wanted]
        part = replace(labels, images=images)
        notations.append(write(part, folder / f"{name}{suffix}"))
    return notations[0], notations[1]


def _in_both(train: str, val: str) -> list[str]:
    files = {r["file_name"] for r in DatasetCatalog.get(train)}
    both = [r["file_name"] for r in DatasetCatalog.get(val) if r["file_name"] in files]
    if not both:
        return []
    return [
        f"{len(both)} pictures are in both, for example {', '.join(both[:_EXAMPLES])}: figures on "
        "them say nothing about other pictures."
    ]
