"""``face-d2-evaluate hiding``: how many faces stay visible when detections are hidden."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CommandParser, add_resampling, at_least_one, run, share

__all__ = ["hiding_main"]


def hiding_main(arguments: Sequence[str] | None = None) -> int:
    """Measures the faces that stay visible; ``arguments`` default to the command line's."""
    parser = CommandParser(
        "face-d2-evaluate hiding",
        "Measures how many annotated faces stay visible when detections above a score threshold "
        "are hidden as face-d2-predict --blur hides them, with 95 % intervals, by face height, "
        "and how many hidden regions are no face.",
        examples=(
            "face-d2-evaluate hiding --detector lffd-20l5s --data widerface_val",
            "face-d2-evaluate hiding --detector yunet.onnx --data faces/val.txt --threshold 0.1",
        ),
        epilog="Detections are stored in --cache. The same command continues a run that was "
        "stopped. With the --cache of face-d2-compare, its detections are used again.",
    )
    parser.add_argument(
        "--detector",
        action="append",
        required=True,
        metavar="SPEC",
        help="as for face-d2-compare; repeat the flag for each detector",
    )
    parser.add_argument(
        "--data",
        required=True,
        help="widerface_val or widerface_train below $DETECTRON2_DATASETS, the path of labels, or "
        "FORMAT:LABELS:IMAGES",
    )
    parser.add_argument(
        "--images", metavar="LIST", help="use only the images listed in this text file"
    )
    parser.add_argument(
        "--threshold",
        action="append",
        type=share,
        metavar="S",
        help="hide detections with a score above S; repeat the flag for each threshold (0.5, 0.2, "
        "0.1, 0.05)",
    )
    parser.add_argument(
        "--covered",
        type=share,
        default=0.75,
        metavar="SHARE",
        help="a face is visible if less than this share of its box is covered (%(default)s)",
    )
    add_resampling(parser)
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("output/hiding/runs"),
        metavar="DIR",
        help="folder of the detections (%(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=at_least_one,
        default=1,
        help="number of processes that run a detector (%(default)s)",
    )
    parser.add_argument("--json", metavar="PATH", help="write the results to this file")
    parser.add_argument(
        "--page", type=Path, metavar="PATH.md", help="write the tables to this Markdown file"
    )
    options = parser.parse_args(arguments)

    def report() -> None:
        from face_d2.analysis.compare.data import read_image_set
        from face_d2.analysis.compare.opening import DetectorChoice
        from face_d2.analysis.hiding import HidingSettings, format_hiding, measure_hiding
        from face_d2.utils.files import write_json, write_text

        settings = HidingSettings(
            tuple(options.threshold or HidingSettings.thresholds),
            options.covered,
            bootstrap=options.bootstrap,
            seed=options.seed,
        )
        results = measure_hiding(
            [DetectorChoice.parse(text) for text in options.detector],
            read_image_set(options.data, options.images),
            settings,
            cache=options.cache,
            processes=options.processes,
        )
        text = format_hiding(results)
        print(text)
        if options.json:
            write_json(results, options.json)
        if options.page:
            write_text(text, options.page)

    return run(report)
