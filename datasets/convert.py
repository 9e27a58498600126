#!/usr/bin/env python
"""Writes a labelled set of any form as COCO json, WIDER FACE text or YOLO's folder.

python datasets/convert.py faces/ --to coco --output faces.json
python datasets/convert.py voc:Annotations:JPEGImages --to yolo --output faces_yolo
"""

from __future__ import annotations

import argparse
from pathlib import Path

from face_d2.data.labels import read_labels
from face_d2.data.labels.write import WRITERS


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", help="file or folder of labels, or FORMAT:LABELS:IMAGES:CATEGORY")
    parser.add_argument("--to", choices=WRITERS, required=True)
    parser.add_argument(
        "--output", type=Path, required=True, help="the file; for yolo a folder, made anew"
    )
    options = parser.parse_args(argv)
    try:
        if options.to == "yolo" and options.output.exists():
            raise FileExistsError(f"{options.output} exists; name a new folder")
        labels = read_labels(options.labels)
        print(labels.summary())
        notation = WRITERS[options.to](labels, options.output)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    if options.to == "yolo" and labels.ignored:
        print(f"{labels.ignored} ignored faces are left out; YOLO's form has none")
    print(f"wrote {notation}")


if __name__ == "__main__":
    main()
