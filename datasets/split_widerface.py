#!/usr/bin/env python
"""Cuts one labelled set of WIDER FACE into a training and a validation set, by the images' names.

An image is of the validation set where the SHA-1 of ``event/file.jpg``, read as a number, leaves
the remainder FOLD when divided by FOLDS: everybody gets the same cut, whatever the order of the
list and however many of the images are there. Nothing is copied; the new set links to the images.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from face_d2.data.wider_face import WiderFaceImage, annotation_lines, read_annotations
from face_d2.utils.files import replaced_folder


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder widerface/ of the set that is cut")
    parser.add_argument("root", type=Path, help="becomes the new $DETECTRON2_DATASETS")
    parser.add_argument("--split", choices=("train", "val"), default="val", help="(%(default)s)")
    parser.add_argument("--folds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--fold", type=int, default=0, help="(%(default)s)")
    options = parser.parse_args(argv)
    if not 0 <= options.fold < options.folds:
        parser.error(f"--fold is 0 to {options.folds - 1}, not {options.fold}")
    if options.root.resolve() == options.source.resolve().parent:
        parser.error(f"{options.root} holds the set that is cut; name another folder")
    text = options.source / "wider_face_split" / f"wider_face_{options.split}_bbx_gt.txt"
    try:
        images = read_annotations(text)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    pictures = options.source / f"WIDER_{options.split}" / "images"
    missing = [image.name for image in images if not (pictures / image.name).is_file()]
    if missing:
        raise SystemExit(f"{pictures} lacks {len(missing)} images of {text}, {missing[0]} first.")
    parts: dict[str, list[WiderFaceImage]] = {"train": [], "val": []}
    for image in images:
        number = int(hashlib.sha1(image.name.encode()).hexdigest(), 16)
        parts["val" if number % options.folds == options.fold else "train"].append(image)
    if empty := [part for part, chosen in parts.items() if not chosen]:
        raise SystemExit(f"no image of {text} falls into the {empty[0]} set; nothing is written.")
    with replaced_folder(options.root / "widerface") as target:
        (target / "wider_face_split").mkdir()
        for part, chosen in parts.items():
            lines = [line for image in chosen for line in annotation_lines(image)]
            (target / "wider_face_split" / f"wider_face_{part}_bbx_gt.txt").write_text(
                "\n".join(lines) + "\n", encoding="utf-8"
            )
            (target / f"WIDER_{part}").mkdir()
            (target / f"WIDER_{part}" / "images").symlink_to(pictures.resolve())
        if (official := options.source / "eval_tools").is_dir():
            (target / "eval_tools").symlink_to(official.resolve())
    counts = [
        f"{len(parts[part])} images to {verb}"
        for part, verb in (("train", "train on"), ("val", "validate on"))
    ]
    print(f"{options.root / 'widerface'}: {', '.join(counts)}")


if __name__ == "__main__":
    main()
