"""Command lines that score anybody's detections: WIDER FACE and FDDB."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from face_d2.evaluation.fddb import fddb_report, fddb_roc, format_fddb
from face_d2.evaluation.report import format_widerface, widerface_report, write_json
from face_d2.evaluation.wider_face import WiderFaceResult, widerface_ap

__all__ = ["fddb_main", "widerface_main"]

_UNSTATED = {
    setting: "not stated"
    for setting in ("image size", "score threshold", "NMS", "test-time augmentation")
}


def widerface_main(arguments: Sequence[str] | None = None) -> None:
    """Scores detections on WIDER FACE; ``arguments`` default to the command line's."""
    parser = argparse.ArgumentParser(
        description="WIDER FACE AP (Easy, Medium, Hard) of detections in the community's text "
        "files, by the official protocol, with 95 %% intervals and breakdowns."
    )
    parser.add_argument(
        "predictions", help="folder, .tar(.gz) or .zip of EVENT/NAME.txt with rows x y w h score"
    )
    parser.add_argument(
        "ground_truth",
        help="folder of the official .mat files (eval_tools/ground_truth), or an annotation text "
        "(*_bbx_gt.txt; Easy/Medium/Hard are then approximated by face height)",
    )
    parser.add_argument(
        "--images",
        metavar="FILE",
        help="score only the images listed there: names event/file.jpg, one per line, or an "
        "annotation text",
    )
    parser.add_argument("--subset-name", help="what to call that subset in the result")
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="resamplings, 0: none (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (%(default)s)")
    parser.add_argument(
        "--image-root", metavar="DIR", help="images; adds contact sheets of the errors to --plots"
    )
    _add_common(parser)
    options = parser.parse_args(arguments)
    if options.image_root and not options.plots:
        parser.error("--image-root is for the contact sheets of --plots DIR")
    with _plain_errors(parser):
        result = widerface_ap(
            options.predictions,
            options.ground_truth,
            images=_image_list(options.images),
            subset_name=options.subset_name,
            bootstrap=options.bootstrap,
            seed=options.seed,
        )
        report = widerface_report(result, _protocol(options))
        print(format_widerface(report))
        if options.json:
            write_json(report, options.json)
        if options.plots:
            _plot_widerface(result, options.name or Path(options.predictions).stem, options)


def fddb_main(arguments: Sequence[str] | None = None) -> None:
    """Scores detections on FDDB; ``arguments`` default to the command line's."""
    parser = argparse.ArgumentParser(
        description="FDDB's discrete and continuous ROC of a file of detections, official rules."
    )
    parser.add_argument(
        "detections",
        help="text: image name, number of rows, rows 'x y w h score' or "
        "'major_radius minor_radius angle x y score'",
    )
    parser.add_argument("folds", help="FDDB-folds, with FDDB-fold-01-ellipseList.txt to -10-")
    parser.add_argument(
        "--image-root", metavar="DIR", help="folder of 2002/, 2003/: canvas from each image's size"
    )
    parser.add_argument(
        "--canvas",
        type=int,
        nargs=2,
        default=(450, 450),
        metavar=("HEIGHT", "WIDTH"),
        help="canvas for all images where --image-root is not given (450 450)",
    )
    parser.add_argument("--roc", metavar="DIR", help="write DiscROC.txt and ContROC.txt there")
    _add_common(parser)
    options = parser.parse_args(arguments)
    with _plain_errors(parser):
        result = fddb_roc(
            options.detections, options.folds, tuple(options.canvas), image_root=options.image_root
        )
        protocol = _protocol(options)
        print(format_fddb(result, protocol))
        if options.roc:
            result.write(options.roc)
        if options.json:
            write_json(fddb_report(result, protocol), options.json)
        if options.plots:
            from face_d2.evaluation.curves import plot_roc

            name = options.name or Path(options.detections).stem
            _announce(plot_roc({name: result}, Path(options.plots) / "fddb_roc"))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="PATH", help="write figures and protocol there")
    parser.add_argument("--plots", metavar="DIR", help="write the curves there, PNG and SVG")
    parser.add_argument("--name", help="the detector's name in plots (the file's)")
    parser.add_argument(
        "--protocol",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="how the detections were made, printed and saved beside the figures, e.g. "
        "--protocol 'image size=longer side 640' --protocol 'NMS=0.5' (repeatable)",
    )


def _protocol(options: argparse.Namespace) -> dict[str, str]:
    pairs = [text.partition("=") for text in options.protocol]
    wrong = [text for text, (_, sign, _) in zip(options.protocol, pairs) if not sign]
    if wrong:
        raise ValueError(f"--protocol {wrong[0]!r}: expected KEY=VALUE.")
    return {**_UNSTATED, **{key.strip(): value.strip() for key, _, value in pairs}}


def _image_list(path: str | None) -> list[str] | None:
    """The lines that name an image; in an annotation text the others are numbers."""
    if path is None:
        return None
    names = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [name for name in names if "/" in name]


def _plot_widerface(result: WiderFaceResult, name: str, options: argparse.Namespace) -> None:
    # Matplotlib takes longer to import than the evaluation to run.
    from face_d2.evaluation import curves, sheets

    folder = Path(options.plots)
    results = {name: result}
    _announce(curves.plot_precision_recall(results, folder / "precision_recall"))
    _announce(curves.plot_recall(results, folder / "recall"))
    _announce(curves.plot_ap_by_height(results, folder / "ap_by_height"))
    _announce(curves.plot_ap_by_attribute(results, folder / "ap_by_attribute"))
    if options.image_root and result.false_positives(1):
        sheet = folder / "false_positives.png"
        _announce([sheets.false_positive_sheet(result, options.image_root, sheet)])
    if options.image_root and result.misses(1):
        _announce([sheets.miss_sheet(result, options.image_root, folder / "misses.png")])


def _announce(files: Sequence[Path]) -> None:
    for file in files:
        print(f"wrote {file}")


@contextmanager
def _plain_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Bad input ends the command with one line; warnings are one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except (OSError, ValueError) as error:
            parser.exit(2, f"error: {error}\n")
        finally:
            for warning in caught:
                print(f"warning: {warning.message}", file=sys.stderr)
