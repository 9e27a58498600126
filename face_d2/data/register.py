"""Registers WIDER FACE, FDDB and the synthetic set in Detectron2's catalogs.

Files are read when a data set is first used. Paths are relative to ``$DETECTRON2_DATASETS``
(default ``datasets``), which may be read-only.
"""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from face_d2.data.catalog import label_records
from face_d2.data.fddb import read_folds
from face_d2.data.image_size import image_sizes
from face_d2.data.labels.model import Findings, LabeledImage, Labels
from face_d2.data.wider_face import (
    ATTRIBUTES,
    WiderFaceImage,
    check_distinct,
    read_annotations,
    read_file_list,
    split_paths,
)
from face_d2.synthetic.dataset import synthetic_path, synthetic_root
from face_d2.utils.files import datasets_root

__all__ = ["is_registered", "load_fddb", "load_wider_face", "register_all", "register_wider_face"]

logger = logging.getLogger(__name__)

_WIDER_TREE = """expected under $DETECTRON2_DATASETS (now {root}):
  widerface/WIDER_train/images/0--Parade/*.jpg ... (also WIDER_val, WIDER_test)
  widerface/wider_face_split/wider_face_train_bbx_gt.txt ...
  widerface/eval_tools/ground_truth/*.mat          (optional: the official evaluation lists)
datasets/README.md says where the files come from."""
_FDDB_TREE = """expected under $DETECTRON2_DATASETS (now {root}):
  fddb/originalPics/2002/...
  fddb/FDDB-folds/FDDB-fold-01-ellipseList.txt ..."""

_THING_CLASSES = ["face"]


def load_wider_face(
    image_root: str | Path, annotation_file: str | Path, *, annotated: bool = True
) -> list[dict[str, Any]]:
    """Reads a WIDER FACE split into Detectron2's dataset dicts.

    Invalid and degenerate faces get ``iscrowd`` 1: they are neither positive nor background. Images
    without a face are background. An image whose header cannot be read has height and width 0; the
    mappers report it.

    Args:
        image_root: folder of the event folders.
        annotation_file: ``wider_face_*_bbx_gt.txt``, or the test set's list of names.
        annotated: False for a list of names.

    Returns:
        One dict per image: file_name, height, width, image_id ("event/name"), and annotations with
        bbox (XYWH pixels), bbox_mode, category_id, iscrowd and the six attributes.

    Raises:
        FileNotFoundError: the folder or a file is missing; the message has the expected tree.
        ValueError: an annotation line is malformed, or two images differ only in their suffix.
    """
    image_root = Path(image_root)
    if not image_root.is_dir():
        raise _missing(image_root, _WIDER_TREE)
    if not Path(annotation_file).is_file():
        raise _missing(Path(annotation_file), _WIDER_TREE)
    if annotated:
        images = read_annotations(annotation_file)
    else:
        no_boxes, no_attributes = np.zeros((0, 4)), np.zeros((0, len(ATTRIBUTES)), np.int64)
        names = read_file_list(annotation_file)
        images = [WiderFaceImage(name, no_boxes, no_attributes) for name in names]
    names = [image.name for image in images]
    check_distinct(names, annotation_file)
    sizes = image_sizes(image_root, names)
    negative = sum(int((image.boxes[:, 2:] < 0).any(axis=1).sum()) for image in images)
    if negative:
        logger.warning(
            "%s: %d boxes of negative width or height are ignored; with the notation wider:%s:%s "
            "they are flipped.",
            annotation_file,
            negative,
            annotation_file,
            image_root,
        )
    labeled = [LabeledImage.from_wider_face(i, image_root, s) for i, s in zip(images, sizes)]
    return label_records(Labels("wider", Path(annotation_file), image_root, labeled, Findings()))


def load_fddb(image_root: str | Path, folds_folder: str | Path) -> list[dict[str, Any]]:
    """Reads all ten folds of FDDB into dataset dicts; ``image_id`` is the image name of FDDB.

    Every annotation has an ellipse (major radius, minor radius, angle in radians, center x, center
    y) and the upright box around it.

    Raises:
        FileNotFoundError: a folder or an image is missing; the message has the expected tree.
    """
    image_root, folds_folder = Path(image_root), Path(folds_folder)
    for folder in (image_root, folds_folder):
        if not folder.is_dir():
            raise _missing(folder, _FDDB_TREE)
    images = [image for fold in read_folds(folds_folder) for image in fold]
    names = [f"{image.name}.jpg" for image in images]
    records = []
    for image, name, (height, width) in zip(images, names, image_sizes(image_root, names)):
        annotations = [
            {
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 0,
                "iscrowd": 0,
                "ellipse": ellipse,
            }
            for box, ellipse in zip(image.boxes().tolist(), image.ellipses.tolist())
        ]
        records.append(
            {
                "file_name": str((image_root / name).absolute()),
                "height": height,
                "width": width,
                "image_id": image.name,
                "annotations": annotations,
            }
        )
    return records


def register_wider_face(
    name: str,
    image_root: str | Path,
    annotation_file: str | Path,
    *,
    eval_ground_truth: str | Path | None = None,
    annotated: bool = True,
    prepare: Callable[[], object] | None = None,
) -> None:
    """Registers a data set in WIDER FACE's format; repeating the call is no error.

    Args:
        name: catalog name, for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        image_root: folder of the event folders.
        annotation_file: annotation text, or a list of names if ``annotated`` is False.
        eval_ground_truth: folder of the official .mat files, used if they exist.
        annotated: False for a test set without labels.
        prepare: called before the files are first read.

    Raises:
        ValueError: the name belongs to another data set.
    """
    annotations = str(annotation_file) if annotated else None
    if is_registered(name, image_root=str(image_root), annotation_file=annotations):
        return

    def load() -> list[dict[str, Any]]:
        if prepare is not None:
            prepare()
        return load_wider_face(image_root, annotation_file, annotated=annotated)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        thing_classes=_THING_CLASSES,
        evaluator_type="widerface",
        image_root=str(image_root),
        annotation_file=annotations,
        eval_ground_truth=str(eval_ground_truth) if eval_ground_truth else None,
    )


def is_registered(name: str, **files: str | None) -> bool:
    """Whether the same data set is registered already.

    Args:
        name: catalog name.
        files: metadata entries with the paths of its files.

    Raises:
        ValueError: the name belongs to a data set with other files.
    """
    if name not in DatasetCatalog.list():
        return False
    there = {key: MetadataCatalog.get(name).get(key) for key in files}
    if there != files:
        raise ValueError(
            f"the name {name!r} belongs to a data set with {there}; got {files}; "
            "choose another name."
        )
    return True


def register_all() -> None:
    """Registers every data set of this project."""
    wider = datasets_root() / "widerface"
    official = wider / "eval_tools" / "ground_truth"
    for split, ground_truth in (("train", None), ("val", official)):
        paths = split_paths(wider, split)
        register_wider_face(f"widerface_{split}", *paths, eval_ground_truth=ground_truth)
    names = wider / "wider_face_split" / "wider_face_test_filelist.txt"
    register_wider_face("widerface_test", wider / "WIDER_test" / "images", names, annotated=False)
    for split in ("train", "val"):
        paths = split_paths(synthetic_path() / "widerface", split)
        register_wider_face(f"widerface_synth_{split}", *paths, prepare=synthetic_root)
    fddb = datasets_root() / "fddb"
    images, folds = fddb / "originalPics", fddb / "FDDB-folds"
    if "fddb" not in DatasetCatalog.list():
        DatasetCatalog.register("fddb", lambda: load_fddb(images, folds))
        MetadataCatalog.get("fddb").set(
            thing_classes=_THING_CLASSES,
            evaluator_type="fddb",
            image_root=str(images),
            folds_folder=str(folds),
        )


def _missing(path: Path, tree: str) -> FileNotFoundError:
    return FileNotFoundError(f"{path} does not exist; " + tree.format(root=datasets_root()))
