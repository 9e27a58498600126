"""``face-d2-predict``: finds faces in files, folders, videos and cameras."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from face_d2.cli.common import CONFIG_HELP, CommandParser, number, run
from face_d2.predictor.drawing import STYLES
from face_d2.predictor.hidden_video import render_tracks
from face_d2.predictor.job import SHOWN_FROM, PredictJob, escaped, predict
from face_d2.predictor.records import FORMATS
from face_d2.pretrained import DEFAULT, PRETRAINED

__all__ = ["main", "parser"]


def parser() -> CommandParser:
    """The command line."""
    result = CommandParser(
        "face-d2-predict",
        "Finds faces in images and videos. Without a model it uses a detector that ships with the "
        "package.",
        examples=(
            "face-d2-predict photo.jpg --draw",
            "face-d2-predict photos clip.mp4 --blur --format csv",
            "face-d2-predict photos --config-file lffd/lffd_25L8S.yaml --weights model_final.pth",
        ),
        epilog="The same command continues a run that was stopped.",
        overrides=True,
    )
    result.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, video, folder, glob, camera index, stream address, or - for a list on stdin",
    )
    model = result.add_argument_group("model")
    model.add_argument(
        "--model",
        choices=tuple(PRETRAINED),
        help=f"a detector that ships with the package (default: {DEFAULT})",
    )
    model.add_argument("--config-file", metavar="FILE", help=CONFIG_HELP)
    model.add_argument("--weights", metavar="FILE", help="checkpoint of the config's network")
    model.add_argument(
        "--onnx",
        metavar="FILE",
        help="file of face-d2-export, YuNet, SCRFD, RetinaFace, YOLO-face, ...; needs no torch",
    )
    model.add_argument(
        "--runtime",
        choices=("auto", "onnxruntime", "openvino"),
        default="auto",
        help="runtime of --model and --onnx; auto: OpenVINO if it is installed, else ONNX Runtime "
        "(default: %(default)s)",
    )
    model.add_argument(
        "--device",
        help="device for --config-file: cpu, cuda or cuda:N (default: cuda if there is a GPU)",
    )
    model.add_argument(
        "--score-threshold",
        type=float,
        metavar="S",
        help="minimum score of faces. By default, the results have all faces above the low "
        f"threshold of the model, --draw and --crop show those above {SHOWN_FROM}, and --blur "
        "hides all faces, or with a shipped detector those above the threshold that its model card "
        "recommends",
    )
    model.add_argument(
        "--min-size",
        type=_size,
        default=0,
        metavar="N",
        help="leave out faces whose box has a longer side below N pixels; --blur does not hide "
        "them either",
    )
    output = result.add_argument_group("output")
    output.add_argument(
        "--output",
        type=Path,
        default=Path("output/predict"),
        metavar="DIR",
        help="folder of the results (default: %(default)s)",
    )
    output.add_argument(
        "--format",
        choices=FORMATS,
        default="json",
        help="format of the results (default: %(default)s)",
    )
    output.add_argument("--draw", action="store_true", help="write images and videos with boxes")
    output.add_argument(
        "--blur",
        action="store_true",
        help="write images and videos in which the found faces are hidden; faces that are not "
        "found stay visible, see docs/hiding.md",
    )
    output.add_argument("--crop", action="store_true", help="write every face as an image")
    output.add_argument(
        "--redact", choices=STYLES, default="blur", help="how --blur hides faces (default: blur)"
    )
    output.add_argument(
        "--tracks",
        type=Path,
        metavar="FILE",
        help="hide the faces listed in this file, which may be edited, in one video, without "
        "searching for faces",
    )
    output.add_argument(
        "--keep-exif", action="store_true", help="keep EXIF data (place, time, camera) in pictures"
    )
    work = result.add_argument_group("work")
    work.add_argument(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="images per batch (default: %(default)s)",
    )
    work.add_argument(
        "--max-pixels",
        type=int,
        default=2**23,
        metavar="N",
        help="larger images are searched in tiles (default: %(default)s)",
    )
    work.add_argument(
        "--first-page",
        action="store_true",
        help="search only the first page of a TIFF and the first frame of an animation",
    )
    work.add_argument(
        "--max-frames",
        type=int,
        metavar="N",
        help="number of frames to read from a camera or stream (default: until Ctrl-C)",
    )
    work.add_argument(
        "--shard",
        type=_shard,
        default=(1, 1),
        metavar="I/N",
        help="process the I-th of N parts; the command without --shard merges the results",
    )
    launcher = result.add_argument_group("processes (with --config-file; Detectron2's launcher)")
    launcher.add_argument("--num-gpus", type=int, default=0, metavar="N", help="GPUs per machine")
    launcher.add_argument(
        "--num-processes", type=int, default=1, metavar="N", help="CPU processes per machine"
    )
    launcher.add_argument(
        "--num-machines", type=int, default=1, metavar="N", help="number of machines"
    )
    launcher.add_argument(
        "--machine-rank", type=int, default=0, metavar="I", help="index of this machine, from 0"
    )
    launcher.add_argument(
        "--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of the first machine"
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``face-d2-predict``.

    Returns:
        0, 1 if an input failed, or 130 if the run was stopped.
    """
    arguments = parser()
    options = arguments.parse_args(argv)
    if sum(map(bool, (options.model, options.onnx, options.config_file))) > 1:
        arguments.error("choose one model: --model, --onnx, or --config-file with --weights")
    if options.weights and not options.config_file:
        arguments.error("--weights needs --config-file")
    if options.config_file and not options.weights:
        arguments.error("--config-file needs --weights")
    if not options.config_file and (options.device or options.opts):
        arguments.error("--device and KEY VALUE pairs are for --config-file")
    if options.tracks and len(options.inputs) != 1:
        arguments.error("--tracks needs exactly one video")
    values = vars(options)
    tracks = values.pop("tracks")
    if tracks:
        video, output, style = options.inputs[0], options.output, options.redact
        return run(lambda: print(escaped(render_tracks(video, tracks, output, style))))
    shipped = values.pop("model")
    if not options.onnx and not options.config_file:
        shipped = shipped or DEFAULT
    if shipped:
        print(f"model: {shipped}", file=sys.stderr)
    job = PredictJob(**values)
    if job.in_processes and (not job.config_file or job.shard != (1, 1)):
        arguments.error("--num-gpus and --num-processes need --config-file and no --shard")

    def find_faces() -> int:
        found = job
        if shipped:
            model = PRETRAINED[shipped]
            found = replace(job, onnx=str(model.onnx), hiding_threshold=model.hiding_threshold)
        try:
            return predict(found)
        except KeyboardInterrupt:
            print("stopped; the same command continues", file=sys.stderr)
            return 130

    return run(find_faces)


def _size(text: str) -> float:
    expected = "a number of pixels, 0 or more"
    return number(text, lambda value: 0 <= value < float("inf"), expected, float)


def _shard(text: str) -> tuple[int, int]:
    try:
        part, parts = map(int, text.split("/"))
    except ValueError:
        part = parts = 0
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N, for example 1/4 ... 4/4")
    return part, parts


if __name__ == "__main__":
    sys.exit(main())
