"""``face-d2-check-dataset``: finds damaged images and wrong boxes of a data set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CommandParser
from face_d2.data.check import BOX_PROBLEMS, IMAGE_PROBLEMS, DatasetCheck, check_dataset
from face_d2.data.clean import changes_file, write_cleaned
from face_d2.data.labels import is_notation, read_labels
from face_d2.data.wider_face import read_annotations
from face_d2.utils.files import write_json

__all__ = ["main"]

_EXAMPLES = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``face-d2-check-dataset``.

    Returns:
        Exit status: 0 if there is no problem, 1 if there is one, 2 if the data set could not be
        checked.
    """
    parser = CommandParser(
        "face-d2-check-dataset",
        "Decodes every image of a data set once and checks every box.",
        examples=(
            "face-d2-check-dataset widerface_train",
            "face-d2-check-dataset --images DIR --annotations FILE --cleaned CLEANED.txt",
        ),
        epilog="Exit status: 0 if there is no problem, 1 if there is one, 2 if the data set could "
        "not be checked.",
    )
    parser.add_argument(
        "name",
        nargs="?",
        help="registered data set, e.g. widerface_train; path of labels; or FORMAT:LABELS:IMAGES",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the event folders")
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="WIDER FACE annotation text"
    )
    parser.add_argument(
        "--cleaned",
        type=Path,
        metavar="FILE",
        help="write a WIDER FACE text without these problems",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all problems to this file")
    parser.add_argument(
        "--workers", type=int, default=0, help="number of threads (default: one per CPU)"
    )
    args = parser.parse_args(argv)
    given = (args.name is not None, args.images is not None, args.annotations is not None)
    if given not in ((True, False, False), (False, True, True)):
        parser.error("give the name of a registered data set, or --images and --annotations")
    if args.workers < 0:
        parser.error(f"--workers is {args.workers}; expected 0 (one per CPU) or more")
    try:
        labels = None
        if args.name is not None and is_notation(args.name):
            labels = read_labels(args.name)
            print(labels.summary())
            root, text = labels.image_root, labels.source
            images = [i.as_wider_face(labels.relative_name(i)) for i in labels.images]
        else:
            root, text = (args.images, args.annotations) if args.images else _registered(args.name)
            if not root.is_dir():
                raise FileNotFoundError(f"{root}: no such folder")
            images = read_annotations(text)
        check = check_dataset(root, images, workers=args.workers)
        print(format_check(check))
        if args.json is not None:
            report = {"images_folder": str(root), "list": str(text), **check.as_json()}
            if labels is not None:
                report["changed_when_read"] = labels.findings.counts
            write_json(report, args.json)
        if args.cleaned is not None:
            changes = write_cleaned(args.cleaned, images, check)
            print(f"{args.cleaned} written; {changes} changes, see {changes_file(args.cleaned)}")
    except (OSError, ValueError, KeyError) as error:
        parser.exit(2, f"error: {error}\n")
    return 0 if check.clean and not (labels and labels.findings.changed) else 1


def format_check(check: DatasetCheck) -> str:
    """The problems with their numbers and the first examples."""
    found = check.as_json()
    lines = [
        f"{found['images']:,} images, {found['faces']:,} faces in {check.seconds:.1f} s "
        f"({found['images_per_second']:.0f} images/s)"
    ]
    for problem, words in IMAGE_PROBLEMS.items():
        names = [f"{i.name} {i.detail}" for i in check.images if i.problem == problem]
        lines += _section("images", problem, words, names)
    for problem, words in BOX_PROBLEMS.items():
        names = [
            f"{image.name}, face {box.row}: {' '.join(f'{v:g}' for v in box.box)}"
            for image in check.images
            for box in image.boxes
            if box.problem == problem
        ]
        lines += _section("boxes", problem, words, names)
    turned = [image.name for image in check.images if image.turned]
    lines += _section(
        "images", "turned", "by EXIF; not a problem, but some tools ignore it", turned
    )
    return "\n".join(lines)


def _section(what: str, problem: str, words: str, names: list[str]) -> list[str]:
    lines = [f"{len(names):6,} {what:6}  {problem.replace('_', ' '):12} {words}"]
    lines += [f"          {name}" for name in names[:_EXAMPLES]]
    return lines + ["          ..."] * (len(names) > _EXAMPLES)


def _registered(name: str) -> tuple[Path, Path]:
    """Image folder and annotation text of a data set in Detectron2's catalog."""
    import face_d2.register  # isort: skip  (patches Detectron2 before its first import)

    from detectron2.data import DatasetCatalog, MetadataCatalog

    if name not in DatasetCatalog.list():
        known = ", ".join(n for n in DatasetCatalog.list() if n.startswith("widerface"))
        raise ValueError(
            f"{name!r} is neither a registered data set nor a path; this project registers "
            f"{known}. Your own labels: FORMAT:LABELS:IMAGES"
        )
    metadata = MetadataCatalog.get(name)
    text = metadata.get("annotation_file")
    if text is None:
        raise ValueError(
            f"{name!r} has no annotations in WIDER FACE's format; give its labels as "
            "FORMAT:LABELS:IMAGES"
        )
    if not Path(text).is_file():
        DatasetCatalog.get(name)  # generates the set, or reports the missing files
    return Path(metadata.image_root), Path(text)


if __name__ == "__main__":
    sys.exit(main())
