"""``face-d2-compare``: any number of face detectors on the same images, on one page."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from face_d2.cli.common import (
    CommandParser,
    add_resampling,
    at_least_one,
    count,
    number,
    run,
    share,
)
from face_d2.detectors import ONNX_DETECTORS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares detectors; ``arguments`` default to the command line's. Returns the exit status."""
    options = _parser().parse_args(arguments)

    def compare_them() -> None:
        from face_d2.analysis.compare.comparison import CompareSettings, compare
        from face_d2.analysis.compare.data import read_image_set
        from face_d2.analysis.compare.measures import MeasureSettings
        from face_d2.analysis.compare.opening import DetectorChoice
        from face_d2.analysis.compare.page import warn_without_page, write_results

        warn_without_page()
        specs = [DetectorChoice.parse(text) for text in options.detector]
        settings = CompareSettings(
            measures=MeasureSettings(
                setting=options.setting,
                threshold=options.threshold,
                recall=options.recall,
                false_positives=options.false_positives,
                bootstrap=options.bootstrap,
                seed=options.seed,
            ),
            processes=options.processes,
            threads=options.threads,
            timing_images=0 if options.no_timing else options.timing_images,
            pictures=options.pictures,
            link_images=options.link_images,
        )
        image_sets = [read_image_set(data, options.images) for data in options.data]
        results = compare(specs, image_sets, options.output, settings, cache=options.cache)
        page = write_results(results, options.output)
        text = page.with_name("results.txt").read_text(encoding="utf-8")
        print(text.split("\n\nDifferences")[0])
        print(f"\n{page}")

    return run(compare_them)


def _parser() -> CommandParser:
    parser = CommandParser(
        "face-d2-compare",
        "Runs face detectors on the same images, scores them by the official WIDER FACE protocol, "
        "and writes index.html, results.json, results.txt and results.md. The same command "
        "continues a run that was stopped.",
        examples=(
            "face-d2-compare --detector face-d2:lffd.onnx --detector yunet.onnx "
            "--data widerface_val --output output/compare",
        ),
    )
    parser.add_argument(
        "--detector",
        action="append",
        required=True,
        metavar="SPEC",
        help="[NAME=][ADAPTER:]FILE[?size=640&score=0.02&nms=0.45], or the name of a shipped "
        "detector; repeat the flag for each detector. "
        f"Adapters of ONNX files: {', '.join(ONNX_DETECTORS)}; others: face-d2:FILE, "
        "config:FILE+WEIGHTS, predictions:FOLDER, haar, mtcnn. A file without an adapter is "
        "recognized by its inputs and outputs",
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="DATA",
        help="widerface_val, widerface_train or fddb below $DETECTRON2_DATASETS, the path of "
        "labels, or FORMAT:LABELS:IMAGES; repeat the flag for each data set",
    )
    parser.add_argument(
        "--images", metavar="LIST", help="use only the images listed in this text file"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the page")
    parser.add_argument("--cache", metavar="DIR", help="folder of the runs (default: OUTPUT/runs)")
    parser.add_argument(
        "--setting",
        choices=("easy", "medium", "hard"),
        default="hard",
        help="faces that are counted in slices, operating points and errors (%(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=share,
        default=0.5,
        help="score threshold of the operating point (%(default)s)",
    )
    parser.add_argument(
        "--recall",
        type=share,
        default=0.8,
        help="recall for which the score threshold is computed (%(default)s)",
    )
    parser.add_argument(
        "--false-positives",
        type=_positive,
        default=0.1,
        metavar="N",
        help="false positives per image for which the score threshold is computed (%(default)s)",
    )
    add_resampling(parser)
    parser.add_argument(
        "--processes",
        type=at_least_one,
        default=1,
        help="number of processes that run a detector (%(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=at_least_one,
        default=1,
        help="number of CPU threads of each process (%(default)s)",
    )
    parser.add_argument("--no-timing", action="store_true", help="measure neither time nor memory")
    parser.add_argument(
        "--timing-images",
        type=at_least_one,
        default=8,
        metavar="N",
        help="number of images for timing (%(default)s)",
    )
    parser.add_argument(
        "--pictures",
        type=count,
        default=24,
        metavar="N",
        help="number of photographs on the page (%(default)s)",
    )
    parser.add_argument(
        "--link-images",
        action="store_true",
        help="link the photographs instead of putting thumbnails on the page",
    )
    return parser


def _positive(text: str) -> float:
    return number(text, lambda value: value > 0, "a number above 0", float)


if __name__ == "__main__":
    sys.exit(main())
