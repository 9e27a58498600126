#!/usr/bin/env python
"""Keeps the faces of a labeled set that have a value of an attribute, and ignores all others.

    python datasets/select_faces.py widerface_train faces/profile.txt --where pose=1 --count 60

Ignored faces are neither positives nor background, in training and in evaluation, so a detector can
be trained and evaluated for one kind of faces. Pictures without such a face are left out. A list in
WIDER FACE's format is written.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from face_d2.cli.common import CommandParser, run
from face_d2.data.labels import LabeledImage, is_notation, read_labels
from face_d2.data.labels.write import write_wider
from face_d2.data.wider_face import ATTRIBUTES, split_paths
from face_d2.utils.files import datasets_root

_MIN_HEIGHT = 10  # pixels; smaller faces are not in WIDER FACE's Hard


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "datasets/select_faces.py",
        "Keeps the faces of a labeled set that have a value of an attribute, and ignores the "
        "others.",
        examples=(
            "python datasets/select_faces.py widerface_train faces/profile.txt --where pose=1",
        ),
    )
    parser.add_argument("source", help="widerface_train, widerface_val or labels by their notation")
    parser.add_argument("target", type=Path, help="the list to write")
    parser.add_argument(
        "--where",
        required=True,
        type=_condition,
        metavar="NAME=VALUE",
        help=f"an attribute of {', '.join(ATTRIBUTES)}, for example pose=1",
    )
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="number of images, chosen by a hash of their names (default: all)",
    )
    options = parser.parse_args(argv)
    return run(lambda: select(options))


def select(options: argparse.Namespace) -> None:
    """Writes the list.

    Raises:
        ValueError: no face has the attribute.
    """
    labels = read_labels(_notation(options.source))
    if all(image.attributes is None for image in labels.images):
        raise ValueError(f"{options.source}: its faces have no attributes")
    images = [_only(image, *options.where) for image in labels.images if len(image.boxes)]
    images = [image for image in images if not image.ignored.all()]
    images.sort(key=lambda image: hashlib.sha1(image.name.encode()).hexdigest())
    images = images[: options.count]
    if not images:
        raise ValueError(f"{options.source}: no face has this attribute")
    kept = replace(labels, images=sorted(images, key=lambda image: image.file))
    notation = write_wider(kept, options.target)
    print(
        f"{notation}: {len(images)} images, {kept.faces - kept.ignored} faces, the others ignored"
    )


def _condition(text: str) -> tuple[int, int]:
    name, _, value = text.partition("=")
    if name not in ATTRIBUTES or not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE, for example pose=1")
    return ATTRIBUTES.index(name), int(value)


def _notation(source: str) -> str:
    if is_notation(source) or not source.startswith("widerface_"):
        return source
    images, text = split_paths(datasets_root() / "widerface", source.removeprefix("widerface_"))
    return f"wider:{text}:{images}"


def _only(image: LabeledImage, attribute: int, value: int) -> LabeledImage:
    if image.attributes is None:
        return replace(image, ignored=np.ones_like(image.ignored))
    wanted = (image.attributes[:, attribute] == value) & (image.boxes[:, 3] > _MIN_HEIGHT)
    return replace(image, ignored=image.ignored | ~wanted)


if __name__ == "__main__":
    sys.exit(main())
