"""``face-d2-train``: trains on your own pictures (``--data``), or by a config file."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CommandParser, run, share
from face_d2.pretrained import PRETRAINED

__all__ = ["main"]

_OWN_FLAGS = ("--data", "--val", "--time", "--model", "--recall", "--output")


def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    if not flags & set(_OWN_FLAGS) and flags - {"-h", "--help"}:
        try:
            from face_d2 import train_net
        except ImportError as error:  # a package is missing
            print(f"error: {error}", file=sys.stderr)
            return 1
        train_net.main(words)
        return 0
    parser = _parser()
    if "--config-file" in flags:
        parser.error("--data chooses the config; with --config-file, DATASETS.TRAIN names the data")
    options = parser.parse_args(words)
    return run(lambda: _fine_tune(parser, options), RuntimeError, FloatingPointError)


def _fine_tune(parser: CommandParser, options: argparse.Namespace) -> None:
    print("Reading the labels ...", flush=True)  # the imports take seconds
    from face_d2.finetune.request import Request, RequestError, default_output
    from face_d2.finetune.run import fine_tune

    output = options.output or default_output(options.data)
    request = Request(
        data=options.data,
        val=options.val,
        seconds=options.time,
        model=options.model,
        recall=options.recall,
        overrides=tuple(options.opts),
    )
    try:
        state = fine_tune(request, output, must_exist=options.resume)
    except RequestError as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        print(f"\n{output}: the same command continues this run", file=sys.stderr)
        raise
    if state.get("was_finished"):
        print(f"{output}: this run is finished; another --output begins a new one")
    for sentence in state["summary"]:
        print(sentence)
    print(f"\n{output / 'model.onnx'}")
    print(f"{output / 'model.md'}")
    print(f"{output / 'report' / 'index.html'}")


def _parser() -> CommandParser:
    parser = CommandParser(
        "face-d2-train",
        "Trains a shipped detector further on your own labeled pictures, and writes the detector "
        "(ONNX and PyTorch), its model card and a report. The same command continues a run that "
        "was stopped.",
        examples=(
            "face-d2-train --data faces/",
            "face-d2-train --data faces/ --time 30m --output output/mine",
            "face-d2-train --data coco:train.json:pictures --val coco:val.json:pictures "
            "SOLVER.BASE_LR 0.001",
            "face-d2-train --config-file lffd/lffd_25L8S.yaml --num-gpus 4",
        ),
        epilog="With --config-file in place of --data, the command takes the flags of Detectron2's "
        "tools/train_net.py: face-d2-train --config-file FILE --help explains them.",
        overrides=True,
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="pictures to train on: the path of their labels, FORMAT:LABELS:IMAGES, or a "
        "registered name",
    )
    parser.add_argument(
        "--val",
        metavar="DATA",
        help="pictures to validate on (default: a fifth of --data, chosen by a hash of the names)",
    )
    parser.add_argument(
        "--time",
        type=_seconds,
        metavar="30m",
        help="total time, including evaluation and export, for example 90s, 30m or 1h30m (default: "
        "ten epochs, without a time limit)",
    )
    parser.add_argument(
        "--model",
        choices=list(PRETRAINED),
        help="the detector to start from (default: df2s2-lite0, or the other if it can learn more "
        "of the faces)",
    )
    parser.add_argument(
        "--recall",
        type=share,
        default=0.9,
        help="recall, between 0 and 1, for which the score threshold is reported "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: output/ and the name of the data)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="fail if there is no run to continue; without this flag, the same command continues "
        "a run or begins one",
    )
    return parser


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    total = 0
    if match:
        total = sum(int(n or 0) * unit for n, unit in zip(match.groups(), (3600, 60, 1)))
    if not total:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a time such as 90s, 30m or 1h30m")
    return float(total)


if __name__ == "__main__":
    sys.exit(main())
