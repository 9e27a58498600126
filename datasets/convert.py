#!/usr/bin/env python
"""Converts labels of any supported format to COCO json, WIDER FACE text or YOLO's folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CommandParser, run
from face_d2.data.labels import read_labels
from face_d2.data.labels.write import WRITERS


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "datasets/convert.py",
        "Converts labels of any supported format to COCO json, WIDER FACE text or YOLO's folder.",
        examples=(
            "python datasets/convert.py faces/ --to coco --output faces.json",
            "python datasets/convert.py voc:Annotations:JPEGImages --to yolo --output faces_yolo",
        ),
    )
    parser.add_argument("labels", help="file or folder of labels, or FORMAT:LABELS:IMAGES:CATEGORY")
    parser.add_argument("--to", choices=WRITERS, required=True)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="PATH",
        help="the file to write; for yolo a folder that does not exist yet",
    )
    options = parser.parse_args(argv)

    def convert() -> None:
        if options.to == "yolo" and options.output.exists():
            raise FileExistsError(f"{options.output} exists; name a new folder")
        labels = read_labels(options.labels)
        print(labels.summary())
        notation = WRITERS[options.to](labels, options.output)
        if options.to == "yolo" and labels.ignored:
            print(f"{labels.ignored} ignored faces are left out; YOLO's format cannot mark them")
        print(f"wrote {notation}")

    return run(convert)


if __name__ == "__main__":
    sys.exit(main())
