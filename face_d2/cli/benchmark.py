"""``face-d2-benchmark``: measures the cost of a detector in every runtime."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CONFIG_HELP, CommandParser, run

__all__ = ["main", "parser"]

#: The sizes of LFFD's paper, width x height.
SIZES = ("160x120", "320x240", "640x480", "1280x720", "1920x1080", "3840x2160")


def parser() -> CommandParser:
    """The command line."""
    result = CommandParser(
        "face-d2-benchmark",
        "Measures parameters, operations, file sizes and times of a detector in every runtime that "
        "is installed, at the image sizes of LFFD's paper. Images are not resized.",
        examples=(
            "face-d2-benchmark --config-file lffd/lffd_25L8S.yaml",
            "face-d2-benchmark --config-file lffd/lffd_25L8S.yaml --sizes 640x480 --threads 2",
        ),
        overrides=True,
    )
    result.add_argument("--config-file", required=True, metavar="FILE", help=CONFIG_HELP)
    result.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint; without it, weights are random, and the end-to-end time includes no NMS",
    )
    result.add_argument(
        "--sizes",
        nargs="+",
        type=_size,
        default=[_size(s) for s in SIZES],
        metavar="WxH",
        help=f"image sizes (default: {' '.join(SIZES)})",
    )
    result.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: one per usable core)"
    )
    result.add_argument(
        "--rounds", type=int, default=15, help="timed rounds per size (default: %(default)s)"
    )
    result.add_argument(
        "--max-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="time limit per size, after which no round starts, except the first three "
        "(default: %(default)s)",
    )
    result.add_argument(
        "--devices",
        nargs="+",
        choices=("cpu", "cuda"),
        help="devices of PyTorch (default: cpu, and cuda if there is a GPU)",
    )
    result.add_argument(
        "--only",
        nargs="+",
        metavar="WORD",
        help="measure only rows whose name contains one of these words",
    )
    result.add_argument(
        "--image", metavar="FILE", help="image for timing, scaled to each size (default: noise)"
    )
    result.add_argument(
        "--calibration",
        metavar="FOLDER",
        help="images for the calibration of int8 (default: noise, which does not affect times)",
    )
    result.add_argument(
        "--onnx",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="ONNX files of other detectors; only their network is timed",
    )
    result.add_argument(
        "--output",
        type=Path,
        default=Path("output/benchmark"),
        metavar="DIR",
        help="folder of the table and plots (default: %(default)s)",
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measures a detector; returns the exit status."""
    command = parser()
    options = command.parse_args(argv)
    for name in ("threads", "rounds"):
        value = getattr(options, name)
        if value is not None and value < 1:
            command.error(f"--{name} {value}: expected 1 or more")
    return run(lambda: _benchmark(options))


def _benchmark(options: argparse.Namespace) -> None:
    import face_d2.needs_detectron2  # isort: skip  (says how to install what is missing)

    import torch

    from face_d2.analysis.benchmark.measure import BenchmarkSettings, measure
    from face_d2.analysis.benchmark.report import markdown, plot_efficiency, plot_times
    from face_d2.utils.files import write_json, write_text
    from face_d2.utils.processor import usable_cores

    foreign = dict(_named_file(word) for word in options.onnx)
    settings = {k: v for k, v in vars(options).items() if k not in ("onnx", "output")}
    settings["threads"] = options.threads or usable_cores()
    available = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    settings["devices"] = options.devices or available
    result = measure(BenchmarkSettings(**settings, foreign=foreign))
    name = result["detector"]["config"]
    text = markdown(result)
    write_json(result, options.output / f"{name}.json")
    write_text(text, options.output / f"{name}.md")
    plot_times(result, options.output / f"{name}_times")
    plot_efficiency(result, options.output / f"{name}_e_net")
    print(text)
    print(f"{options.output}: {name}.json, {name}.md and plots")


def _size(word: str) -> tuple[str, int, int]:
    """Parses "640x480" to this word, height and width."""
    width, cross, height = word.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, such as 640x480, not {word!r}")
    return word, int(height), int(width)


def _named_file(word: str) -> tuple[str, Path]:
    name, equals, file = word.partition("=")
    if not equals or not name:
        raise ValueError(f"--onnx {word}: expected NAME=FILE")
    if not Path(file).is_file():
        raise FileNotFoundError(f"--onnx {word}: no such file")
    return name, Path(file)


if __name__ == "__main__":
    sys.exit(main())
