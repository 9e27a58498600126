"""``face-d2-export``: writes a detector as an ONNX file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from face_d2.cli.common import CONFIG_HELP, CommandParser, run

__all__ = ["main"]

#: With fewer images, the measured loss of AP is mostly chance.
_ENOUGH_IMAGES = 50


def main(argv: Sequence[str] | None = None) -> int:
    """Exports a detector; returns the exit status."""
    parser = CommandParser(
        "face-d2-export",
        "Writes a detector as an ONNX file that takes batches of uint8 images of any size, checks "
        "it and compares it with PyTorch at three sizes.",
        examples=(
            "face-d2-export --config-file lffd/lffd_25L8S.yaml --weights model_final.pth "
            "--output lffd.onnx",
            "face-d2-export --config-file lffd/lffd_25L8S.yaml --weights model_final.pth "
            "--output lffd.onnx --int8 photos",
            "face-d2-export --config-file lffd/lffd_25L8S.yaml --weights model_final.pth "
            "--output lffd_opencv.onnx --opencv 480 640",
        ),
        overrides=True,
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help=CONFIG_HELP)
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="checkpoint of the config's network"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE.onnx", help="the file to write"
    )
    parser.add_argument(
        "--outputs",
        choices=("candidates", "maps", "detections"),
        default="candidates",
        help="candidates: boxes and scores before NMS, for FaceDetector.from_onnx; "
        "detections: after NMS in the graph; maps: the raw maps (default: %(default)s)",
    )
    parser.add_argument(
        "--opencv",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="a file for OpenCV's dnn instead: float input (1, 3, HEIGHT, WIDTH), as "
        "cv2.dnn.blobFromImage makes it; outputs boxes and scores before NMS",
    )
    parser.add_argument(
        "--opset", type=int, default=17, help="ONNX opset, 16 to 20 (default: %(default)s)"
    )
    int8 = parser.add_argument_group("int8")
    int8.add_argument(
        "--int8",
        type=Path,
        metavar="FOLDER",
        help="also write FILE_int8.onnx, calibrated on the images in this folder",
    )
    int8.add_argument(
        "--ground-truth",
        type=Path,
        metavar="PATH",
        help="WIDER FACE annotation text or folder of .mat files for these images; without it, the "
        "loss of AP is measured against the boxes of the float model",
    )
    int8.add_argument(
        "--max-loss",
        type=float,
        default=0.5,
        metavar="POINTS",
        help="maximum loss of AP, in points of 0-100; above it, no int8 file is written "
        "(default: %(default)s)",
    )
    int8.add_argument(
        "--int8-weights",
        type=int,
        choices=(7, 8),
        default=7,
        help="bits per weight. 7: correct on every processor; 8: more exact on Arm and on x86-64 "
        "with VNNI, wrong on other x86-64 processors (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    if options.int8 and options.outputs != "candidates":
        parser.error("--int8 needs --outputs candidates")
    if options.opencv and (options.int8 or options.outputs != "candidates"):
        parser.error("--opencv cannot be combined with --outputs and --int8")
    if options.ground_truth and not options.int8:
        parser.error("--ground-truth needs --int8")
    if options.int8_weights != 7 and not options.int8:
        parser.error("--int8-weights needs --int8")
    if options.output.suffix != ".onnx":
        parser.error(f"--output {options.output}: the name must end in .onnx")
    return run(lambda: _export(options), RuntimeError)


def _export(options: argparse.Namespace) -> None:
    from face_d2.config import load_config
    from face_d2.export.onnx_file import export_onnx
    from face_d2.export.opencv_file import export_for_opencv
    from face_d2.predictor.torch_backend import build_detector, configured_size_rule

    images = _images_for_int8(options) if options.int8 else []
    cfg = load_config(options.config_file, options.opts)
    cfg.MODEL.DEVICE = "cpu"
    model = build_detector(cfg, options.weights)
    settings = {
        "size_rule": configured_size_rule(cfg),
        "config": Path(options.config_file).stem,
        "weights": options.weights,
        "opset": options.opset,
    }
    if options.opencv:
        kind = "for OpenCV's dnn"
        comparisons = export_for_opencv(model, options.output, tuple(options.opencv), **settings)
    else:
        kind = options.outputs
        comparisons = export_onnx(model, options.output, outputs=options.outputs, **settings)
    megabytes = options.output.stat().st_size / 1e6
    print(f"{options.output}: {kind}, opset {options.opset}, {megabytes:.1f} MB")
    for comparison in comparisons:
        batch, height, width = comparison.shape
        worst = ", ".join(f"{name} {value:.2g}" for name, value in comparison.differences.items())
        print(
            f"  {batch} x {height} x {width}, {comparison.runtime}: maximum difference from "
            f"PyTorch: {worst}"
        )
    if options.int8:
        _quantize(options, images)


def _images_for_int8(options: argparse.Namespace) -> list[str]:
    """The images of --int8, checked before anything is written."""
    from face_d2.export.accuracy import check_images
    from face_d2.predictor.sources import find_inputs

    images = [s.file for s in find_inputs([str(options.int8)]).sources if s.kind == "image"]
    try:
        check_images(images, options.ground_truth)
    except ValueError as error:
        raise ValueError(f"--int8 {options.int8}: {error}") from None
    if len(images) < _ENOUGH_IMAGES:
        print(
            f"warning: int8 is calibrated and measured on few images ({len(images)}); use "
            f"{_ENOUGH_IMAGES} or more that resemble the images of the application",
            file=sys.stderr,
        )
    return images


def _quantize(options: argparse.Namespace, images: Sequence[str]) -> None:
    from face_d2.export.quantize import WEIGHT_BITS, quantize

    path = options.output.with_name(f"{options.output.stem}_int8.onnx")
    result = quantize(
        options.output,
        path,
        images,
        ground_truth=options.ground_truth,
        max_loss=options.max_loss,
        weight_bits=options.int8_weights,
    )
    kept = len(result.kept_float)
    print(
        f"{path}: int8, weights of {options.int8_weights} bits, {kept} convolutions in float, "
        f"{path.stat().st_size / 1e6:.1f} MB; for processors: {WEIGHT_BITS[options.int8_weights]}"
    )
    faces = "ground truth" if options.ground_truth else "the float model's boxes"
    print(f"  AP against {faces}, {result.images} images: float {result.float_ap:.2f}")
    for runtime, value in result.int8_ap.items():
        print(f"  int8 in {runtime}: {value:.2f}, {result.float_ap - value:+.2f} lost")


if __name__ == "__main__":
    sys.exit(main())
