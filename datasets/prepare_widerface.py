#!/usr/bin/env python
"""Unpacks the official WIDER FACE archives where the data sets are looked up, and checks them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from face_d2.data.image_size import image_sizes
from face_d2.data.wider_face import ATTRIBUTES, read_annotations, unusable_faces

# archive -> (what it unpacks to, images expected below it)
ARCHIVES = {
    "WIDER_train.zip": ("WIDER_train/images", 12880),
    "WIDER_val.zip": ("WIDER_val/images", 3226),
    "WIDER_test.zip": ("WIDER_test/images", 16097),
    "wider_face_split.zip": ("wider_face_split", 0),
    "eval_tools.zip": ("eval_tools/ground_truth", 0),
}


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archives", type=Path, help=f"folder with {', '.join(ARCHIVES)}")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("DETECTRON2_DATASETS", "datasets")),
        help="default: $DETECTRON2_DATASETS, else datasets/",
    )
    parser.add_argument("--coco", action="store_true", help="also write COCO json")
    options = parser.parse_args(argv)
    target = options.root / "widerface"
    present = [name for name in ARCHIVES if (options.archives / name).is_file()]
    there = [name for name, (folder, _) in ARCHIVES.items() if (target / folder).is_dir()]
    if not present and not there:
        raise SystemExit(
            f"{options.archives} holds none of {', '.join(ARCHIVES)}, and {target} is empty."
        )
    for name in present:
        if name in there:
            print(f"{target / ARCHIVES[name][0]} is there already")
        else:
            unpack(options.archives / name, target)
    problems = check(target)
    if options.coco:
        for split in ("train", "val"):
            text = target / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
            if text.is_file():
                path = text.with_name(f"wider_face_{split}_coco.json")
                path.write_text(json.dumps(to_coco(target / f"WIDER_{split}" / "images", text)))
                print(f"wrote {path}")
    if problems:
        raise SystemExit("\n".join(problems))


def unpack(archive: Path, target: Path) -> None:
    """Unpacks ``archive`` below ``target``, through a temporary folder so that a stop leaves no
    half.

    Raises:
        SystemExit: when the archive is damaged or would write outside ``target``.
    """
    partial = target / f".{archive.stem}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [m for m in file.infolist() if not m.filename.startswith("__MACOSX")]
            for member in tqdm(members, desc=archive.name, unit="file", file=sys.stderr):
                file.extract(member, partial)  # zipfile keeps names inside the folder
    except zipfile.BadZipFile as error:
        raise SystemExit(f"{archive}: damaged ({error}); fetch it again.") from error
    for entry in partial.iterdir():
        entry.rename(target / entry.name)
    partial.rmdir()


def check(target: Path) -> list[str]:
    """Sentences on what is missing or incomplete below ``target``."""
    problems = []
    for name, (folder, expected) in ARCHIVES.items():
        path = target / folder
        if not path.is_dir():
            print(f"absent: {path} (from {name})")
            continue
        if expected:
            found = sum(1 for _ in path.glob("*/*.jpg"))
            print(f"{path}: {found:,} images")
            if found != expected:
                problems.append(f"{path}: {found:,} images, expected {expected:,}.")
    for split in ("train", "val"):
        text = target / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        if text.is_file():
            images = read_annotations(text)
            faces = sum(len(image.boxes) for image in images)
            print(f"{text}: {len(images):,} images, {faces:,} faces")
    return problems


def to_coco(image_root: Path, annotation_file: Path) -> dict[str, Any]:
    """The split as a COCO dictionary; ignored faces have ``iscrowd`` 1.

    Unreadable images, which have no size, are left out (reading the sizes has named them).
    """
    images = read_annotations(annotation_file)
    sizes = image_sizes(image_root, [image.name for image in images])
    records, annotations = [], []
    readable = [(image, size) for image, size in zip(images, sizes) if min(size) > 0]
    for index, (image, (height, width)) in enumerate(readable, start=1):
        records.append({"id": index, "file_name": image.name, "height": height, "width": width})
        for box, attributes, ignored in zip(
            image.boxes.tolist(), image.attributes.tolist(), unusable_faces(image)
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": 1,
                    "bbox": box,
                    "area": max(box[2], 0) * max(box[3], 0),
                    "iscrowd": int(ignored),
                    **dict(zip(ATTRIBUTES, attributes)),
                }
            )
    categories = [{"id": 1, "name": "face"}]
    return {"images": records, "annotations": annotations, "categories": categories}


if __name__ == "__main__":
    main()
