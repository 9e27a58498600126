#!/usr/bin/env python
"""Unpacks the official WIDER FACE archives into the folder of the data sets, and checks them."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from face_d2.cli.common import CommandParser, run
from face_d2.data.image_size import image_sizes
from face_d2.data.labels.model import Findings, LabeledImage, Labels
from face_d2.data.labels.write import coco_content
from face_d2.data.wider_face import read_annotations, split_paths
from face_d2.utils.files import datasets_root

# archive -> (what it unpacks to, images expected below it)
ARCHIVES = {
    "WIDER_train.zip": ("WIDER_train/images", 12880),
    "WIDER_val.zip": ("WIDER_val/images", 3226),
    "WIDER_test.zip": ("WIDER_test/images", 16097),
    "wider_face_split.zip": ("wider_face_split", 0),
    "eval_tools.zip": ("eval_tools/ground_truth", 0),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "datasets/prepare_widerface.py",
        "Unpacks the official WIDER FACE archives into the folder of the data sets, and checks "
        "them.",
        examples=("python datasets/prepare_widerface.py ~/Downloads --root /data/detection",),
    )
    parser.add_argument("archives", type=Path, help=f"folder with {', '.join(ARCHIVES)}")
    parser.add_argument(
        "--root",
        type=Path,
        default=datasets_root(),
        metavar="DIR",
        help="default: $DETECTRON2_DATASETS, else datasets/",
    )
    parser.add_argument("--coco", action="store_true", help="also write COCO json")
    options = parser.parse_args(argv)
    return run(lambda: prepare(options.archives, options.root / "widerface", options.coco))


def prepare(archives: Path, target: Path, coco: bool) -> int:
    """Unpacks and checks the archives; returns the exit status.

    Raises:
        FileNotFoundError: there are neither archives nor unpacked folders.
    """
    present = [name for name in ARCHIVES if (archives / name).is_file()]
    unpacked = [name for name, (folder, _) in ARCHIVES.items() if (target / folder).is_dir()]
    if not present and not unpacked:
        raise FileNotFoundError(
            f"{archives} holds none of {', '.join(ARCHIVES)}, and {target} is empty"
        )
    for name in present:
        if name in unpacked:
            print(f"{target / ARCHIVES[name][0]} exists already")
        else:
            unpack(archives / name, target)
    problems = check(target)
    if coco:
        for split in ("train", "val"):
            images, text = split_paths(target, split)
            if text.is_file():
                path = text.with_name(f"wider_face_{split}_coco.json")
                path.write_text(json.dumps(to_coco(images, text)))
                print(f"wrote {path}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return int(bool(problems))


def unpack(archive: Path, target: Path) -> None:
    """Unpacks ``archive`` below ``target``.

    A temporary folder receives the files first, so that an interruption leaves no partial folder.

    Raises:
        ValueError: the archive is damaged.
    """
    partial = target / f".{archive.stem}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [m for m in file.infolist() if not m.filename.startswith("__MACOSX")]
            for member in tqdm(members, desc=archive.name, unit="file", file=sys.stderr):
                file.extract(member, partial)  # zipfile keeps names inside the folder
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive}: damaged ({error}); download it again") from error
    for entry in partial.iterdir():
        entry.rename(target / entry.name)
    partial.rmdir()


def check(target: Path) -> list[str]:
    """Prints the contents of ``target``; returns a sentence for each incomplete folder."""
    problems = []
    for name, (folder, expected) in ARCHIVES.items():
        path = target / folder
        if not path.is_dir():
            print(f"missing: {path} (from {name})")
            continue
        if expected:
            found = sum(1 for _ in path.glob("*/*.jpg"))
            print(f"{path}: {found:,} images")
            if found != expected:
                problems.append(f"{path}: {found:,} images, expected {expected:,}")
    for split in ("train", "val"):
        _, text = split_paths(target, split)
        if text.is_file():
            images = read_annotations(text)
            faces = sum(len(image.boxes) for image in images)
            print(f"{text}: {len(images):,} images, {faces:,} faces")
    return problems


def to_coco(image_root: Path, annotation_file: Path) -> dict[str, Any]:
    """Converts a split to a COCO dictionary, in which ignored faces have ``iscrowd`` 1.

    Unreadable images are left out, because their size is unknown; a warning has named them.
    """
    images = read_annotations(annotation_file)
    sizes = image_sizes(image_root, [image.name for image in images])
    readable = [
        LabeledImage.from_wider_face(image, image_root, size)
        for image, size in zip(images, sizes)
        if min(size) > 0
    ]
    return coco_content(Labels("wider", annotation_file, image_root, readable, Findings()))


if __name__ == "__main__":
    sys.exit(main())
