#!/usr/bin/env python
"""Splits one labeled set of WIDER FACE into a training and a validation set, by image name.

An image belongs to the validation set if the SHA-1 of ``event/file.jpg``, taken as a number, leaves
the remainder FOLD when divided by FOLDS. The split therefore depends neither on the order of the
list nor on which images are present. No image is copied; the new set contains links.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CommandParser, run
from face_d2.data.wider_face import (
    WiderFaceImage,
    read_annotations,
    split_paths,
    write_annotations,
)
from face_d2.utils.files import replaced_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "datasets/split_widerface.py",
        "Splits one labeled set of WIDER FACE into a training and a validation set, by image name.",
        examples=(
            "python datasets/split_widerface.py datasets/widerface /data/fold --fold 0 --folds 5",
        ),
    )
    parser.add_argument("source", type=Path, help="folder widerface/ of the set to split")
    parser.add_argument("root", type=Path, help="the new $DETECTRON2_DATASETS")
    parser.add_argument("--split", choices=("train", "val"), default="val", help="(%(default)s)")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="(%(default)s)")
    parser.add_argument("--fold", type=int, default=0, metavar="I", help="(%(default)s)")
    options = parser.parse_args(argv)
    if not 0 <= options.fold < options.folds:
        parser.error(f"--fold is {options.fold}; expected 0 to {options.folds - 1}")
    if options.root.resolve() == options.source.resolve().parent:
        parser.error(f"{options.root} holds the set to split; name another folder")
    return run(lambda: split(options))


def split(options: argparse.Namespace) -> None:
    """Writes the two lists and the links to the images.

    Raises:
        FileNotFoundError: an image of the list does not exist.
        ValueError: a part would have no image.
    """
    pictures, text = split_paths(options.source, options.split)
    images = read_annotations(text)
    missing = [image.name for image in images if not (pictures / image.name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{pictures} lacks {len(missing)} images of {text}, {missing[0]} first"
        )
    parts: dict[str, list[WiderFaceImage]] = {"train": [], "val": []}
    for image in images:
        number = int(hashlib.sha1(image.name.encode()).hexdigest(), 16)
        parts["val" if number % options.folds == options.fold else "train"].append(image)
    if empty := [part for part, chosen in parts.items() if not chosen]:
        raise ValueError(f"no image of {text} falls into the {empty[0]} set; nothing is written")
    with replaced_folder(options.root / "widerface") as target:
        for part, chosen in parts.items():
            link, text = split_paths(target, part)
            write_annotations(text, chosen)
            link.parent.mkdir()
            link.symlink_to(pictures.resolve())
        if (official := options.source / "eval_tools").is_dir():
            (target / "eval_tools").symlink_to(official.resolve())
    print(
        f"{options.root / 'widerface'}: {len(parts['train'])} images to train on, "
        f"{len(parts['val'])} images to validate on"
    )


if __name__ == "__main__":
    sys.exit(main())
