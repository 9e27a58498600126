"""``face-d2-evaluate``: scores on WIDER FACE and FDDB, coverage, and faces that stay visible."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from face_d2.cli.common import CONFIG_HELP, CommandParser, add_resampling, run
from face_d2.cli.hiding import hiding_main
from face_d2.data.labels import is_notation
from face_d2.data.wider_face import listed_images
from face_d2.utils.files import write_json
from face_d2.utils.requirements import require

if TYPE_CHECKING:
    from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth
    from face_d2.evaluation.wider_face.protocol import WiderFaceResult

__all__ = ["coverage_main", "fddb_main", "main", "widerface_main"]

_UNSTATED = dict.fromkeys(
    ("image size", "score threshold", "NMS", "test-time augmentation"), "not stated"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``face-d2-evaluate``; runs a subcommand and returns its exit status."""
    commands = {
        "widerface": widerface_main,
        "fddb": fddb_main,
        "coverage": coverage_main,
        "hiding": hiding_main,
    }
    parser = CommandParser(
        "face-d2-evaluate",
        "Scores the detections of any detector on WIDER FACE (widerface) or FDDB (fddb), reports "
        "before training which faces a config can learn (coverage), or measures how many faces "
        "stay visible when the detections are hidden (hiding).",
        examples=(
            "face-d2-evaluate widerface detections.zip wider_face_val_bbx_gt.txt",
            "face-d2-evaluate fddb detections.txt datasets/fddb/FDDB-folds",
            "face-d2-evaluate coverage --config-file lffd/lffd_25L8S.yaml",
            "face-d2-evaluate hiding --detector lffd-20l5s --data widerface_val",
        ),
    )
    parser.add_argument("command", choices=commands)
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="arguments of the command; see COMMAND --help"
    )
    options = parser.parse_args(arguments)
    return commands[options.command](options.arguments)


def widerface_main(arguments: Sequence[str] | None = None) -> int:
    """Scores detections on WIDER FACE; ``arguments`` default to the command line's."""
    parser = CommandParser(
        "face-d2-evaluate widerface",
        "WIDER FACE AP (Easy, Medium, Hard) of detections in the benchmark's text files, by the "
        "official protocol, with 95 % intervals and breakdowns.",
        examples=(
            "face-d2-evaluate widerface output/predict/txt eval_tools/ground_truth",
            "face-d2-evaluate widerface detections.zip wider_face_val_bbx_gt.txt --plots plots",
        ),
    )
    parser.add_argument(
        "predictions", help="folder, .tar(.gz) or .zip of EVENT/NAME.txt with rows x y w h score"
    )
    parser.add_argument(
        "ground_truth",
        help="folder of the official .mat files (eval_tools/ground_truth); or an annotation text "
        "(*_bbx_gt.txt), other labels by their path or as FORMAT:LABELS:IMAGES, or a registered "
        "data set (Easy/Medium/Hard are then approximated by face height)",
    )
    parser.add_argument(
        "--images",
        metavar="FILE",
        help="score only the images in this list: names event/file.jpg, one per line, or an "
        "annotation text",
    )
    parser.add_argument("--subset-name", help="name of the subset in the result")
    add_resampling(parser)
    parser.add_argument(
        "--image-root", metavar="DIR", help="image folder; adds contact sheets of errors to --plots"
    )
    _add_common(parser)
    options = parser.parse_args(arguments)
    if options.image_root and not options.plots:
        parser.error("--image-root needs --plots DIR")
    protocol = _protocol(parser, options)

    def score() -> None:
        if options.plots:
            require("plots")
        from face_d2.evaluation.wider_face.protocol import widerface_ap
        from face_d2.evaluation.wider_face.report import format_widerface, widerface_report

        result = widerface_ap(
            options.predictions,
            _ground_truth(options.ground_truth),
            images=_image_list(options.images),
            subset_name=options.subset_name,
            bootstrap=options.bootstrap,
            seed=options.seed,
        )
        report = widerface_report(result, protocol)
        print(format_widerface(report))
        if options.json:
            write_json(report, options.json)
        if options.plots:
            _plot_widerface(result, options.name or Path(options.predictions).stem, options)

    return run(score)


def fddb_main(arguments: Sequence[str] | None = None) -> int:
    """Scores detections on FDDB; ``arguments`` default to the command line's."""
    parser = CommandParser(
        "face-d2-evaluate fddb",
        "FDDB's discrete and continuous ROC of a file of detections, by the official protocol.",
        examples=(
            "face-d2-evaluate fddb detections.txt datasets/fddb/FDDB-folds --roc output/roc",
        ),
    )
    parser.add_argument(
        "detections",
        help="text: image name, number of rows, rows 'x y w h score' or "
        "'major_radius minor_radius angle x y score'",
    )
    parser.add_argument("folds", help="FDDB-folds, with FDDB-fold-01-ellipseList.txt to -10-")
    parser.add_argument(
        "--image-root",
        metavar="DIR",
        help="folder of 2002/, 2003/; the canvas is then each image's size",
    )
    parser.add_argument(
        "--canvas",
        type=int,
        nargs=2,
        default=(450, 450),
        metavar=("HEIGHT", "WIDTH"),
        help="canvas for all images without --image-root (450 450)",
    )
    parser.add_argument(
        "--roc", metavar="DIR", help="write DiscROC.txt and ContROC.txt to this folder"
    )
    _add_common(parser)
    options = parser.parse_args(arguments)
    protocol = _protocol(parser, options)

    def score() -> None:
        if options.plots:
            require("plots")
        from face_d2.evaluation.fddb.protocol import fddb_report, fddb_roc, format_fddb

        result = fddb_roc(
            options.detections, options.folds, tuple(options.canvas), image_root=options.image_root
        )
        print(format_fddb(result, protocol))
        if options.roc:
            result.write(options.roc)
        if options.json:
            write_json(fddb_report(result, protocol), options.json)
        if options.plots:
            from face_d2.visualization.plots import plot_roc

            name = options.name or Path(options.detections).stem
            _announce(plot_roc({name: result}, Path(options.plots) / "fddb_roc"))

    return run(score)


def coverage_main(arguments: Sequence[str] | None = None) -> int:
    """Reports the faces that a config can learn; see :mod:`face_d2.analysis.coverage`."""
    parser = CommandParser(
        "face-d2-evaluate coverage",
        "Reports, by face height, the share of a data set's faces that are matched to an anchor "
        "(DF2S2) or a receptive field (LFFD) of a config at the test size. It needs annotations "
        "and image sizes, but no weights and no pixels.",
        examples=(
            "face-d2-evaluate coverage --config-file df2s2/df2s2_R50_FFP.yaml",
            "face-d2-evaluate coverage --config-file lffd/lffd_25L8S.yaml INPUT.MIN_SIZE_TEST 0",
        ),
        overrides=True,
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help=CONFIG_HELP)
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="registered data set, path of labels or FORMAT:LABELS:IMAGES (the first of "
        "DATASETS.TEST; with --training, of TRAIN)",
    )
    parser.add_argument(
        "--training", action="store_true", help="use random training crops of the config's mapper"
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=1,
        metavar="N",
        help="crops per image with --training (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the crops (%(default)s)")
    parser.add_argument("--json", metavar="PATH", help="write the results to this file")
    parser.add_argument("--plots", metavar="DIR", help="write coverage.png and .svg to this folder")
    options = parser.parse_args(arguments)

    def report() -> None:
        # torch and Detectron2 are loaded by this command alone.
        from face_d2.analysis.coverage import coverage_report, format_coverage, measure_coverage
        from face_d2.config import load_config

        cfg = load_config(options.config_file, ["MODEL.DEVICE", "cpu", *options.opts])
        cfg.freeze()
        configured = cfg.DATASETS.TRAIN if options.training else cfg.DATASETS.TEST
        dataset = options.dataset or next(iter(configured), None)
        if dataset is None:
            raise ValueError("the config names no data set; add --dataset NAME.")
        coverage = measure_coverage(
            cfg, dataset, training=options.training, draws=options.draws, seed=options.seed
        )
        print(format_coverage(coverage))
        if options.json:
            write_json(coverage_report(coverage), options.json)
        if options.plots:
            from face_d2.analysis.coverage_plot import plot_coverage

            _announce(plot_coverage(coverage, Path(options.plots) / "coverage"))

    return run(report)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="PATH", help="write results and protocol to this file")
    parser.add_argument(
        "--plots", metavar="DIR", help="write the curves to this folder, as PNG and SVG"
    )
    parser.add_argument("--name", help="name of the detector in plots (default: that of the file)")
    parser.add_argument(
        "--protocol",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the detector, printed and saved with the results, e.g. "
        "--protocol 'image size=longer side 640' --protocol 'NMS=0.5' (repeatable)",
    )


def _protocol(parser: CommandParser, options: argparse.Namespace) -> dict[str, str]:
    pairs = [text.partition("=") for text in options.protocol]
    wrong = [text for text, (_, sign, _) in zip(options.protocol, pairs) if not sign]
    if wrong:
        parser.error(f"--protocol {wrong[0]!r}: expected KEY=VALUE")
    return {**_UNSTATED, **{key.strip(): value.strip() for key, _, value in pairs}}


def _image_list(path: str | None) -> list[str] | None:
    """The lines with image names; the other lines of an annotation text are numbers."""
    return None if path is None else listed_images(path)


def _ground_truth(text: str) -> str | WiderFaceGroundTruth:
    """The ground truth for :func:`widerface_ap`; registered data sets are read by Detectron2."""
    if Path(text).exists() or is_notation(text):
        return text
    import face_d2.register  # isort: skip  (patches Detectron2 before its first import)

    from face_d2.data.catalog import register_data_sets
    from face_d2.evaluation.evaluators import dataset_ground_truth

    try:
        register_data_sets([text])
    except ValueError:
        return text  # the reader reports what is expected
    found = dataset_ground_truth(text)
    if found is None:
        raise ValueError(f"data set {text!r} has no labels.")
    return found


def _plot_widerface(result: WiderFaceResult, name: str, options: argparse.Namespace) -> None:
    # Matplotlib takes longer to import than the evaluation to run.
    from face_d2.visualization import plots, sheets

    folder = Path(options.plots)
    results = {name: result}
    _announce(plots.plot_precision_recall(results, folder / "precision_recall"))
    _announce(plots.plot_recall(results, folder / "recall"))
    _announce(plots.plot_ap_by_height(results, folder / "ap_by_height"))
    _announce(plots.plot_ap_by_attribute(results, folder / "ap_by_attribute"))
    if options.image_root and result.false_positives(1):
        sheet = folder / "false_positives.png"
        _announce([sheets.false_positive_sheet(result, options.image_root, sheet)])
    if options.image_root and result.misses(1):
        _announce([sheets.miss_sheet(result, options.image_root, folder / "misses.png")])


def _announce(files: Sequence[Path]) -> None:
    for file in files:
        print(f"wrote {file}")


if __name__ == "__main__":
    sys.exit(main())
