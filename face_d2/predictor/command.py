"""``face-d2-predict``: faces of files, folders, videos and cameras."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_d2.files import replaced_file
from face_d2.predictor.api import FaceDetector
from face_d2.predictor.images import load_image
from face_d2.predictor.pictures import (
    blur_faces,
    crop_faces,
    draw_faces,
    picture_name,
    save_image,
)
from face_d2.predictor.records import (
    FORMATS,
    Journal,
    check_text_names,
    make_record,
    write_format,
)
from face_d2.predictor.results import FaceResult
from face_d2.predictor.sources import Source, find_sources
from face_d2.predictor.video import VideoReader, VideoSink

__all__ = ["main", "parser"]

#: Kinds of pictures that --draw and --blur make: folder and function.
_PAINTERS: dict[str, Callable[[NDArray[np.uint8], FaceResult], NDArray[np.uint8]]] = {
    "drawn": draw_faces,
    "blurred": blur_faces,
}
#: Where no threshold is asked for, --draw and --crop leave out what the model itself doubts: it
#: reports all that counts for a precision-recall curve. --blur hides them all.
_SHOWN_FROM = 0.5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="face-d2-predict",
        description="Finds faces in images and videos.",
        epilog="A run that was stopped goes on where it was when the same command is given again.",
    )
    result.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, video, folder, glob, camera index, or - for a list of files on stdin",
    )
    model = result.add_argument_group("model")
    model.add_argument("--config-file", metavar="FILE", help="config, or the name of a shipped one")
    model.add_argument("--weights", metavar="FILE", help="checkpoint of that config's network")
    model.add_argument(
        "--onnx",
        metavar="FILE",
        help="of face-d2-export, or of YuNet, SCRFD, RetinaFace, YOLO-face, ...; needs no torch",
    )
    model.add_argument(
        "--runtime", choices=("auto", "onnxruntime", "openvino"), default="auto", help="for --onnx"
    )
    model.add_argument("--device", help="cpu, cuda, cuda:N; by default CUDA where there is a GPU")
    model.add_argument(
        "--score-threshold",
        type=float,
        metavar="S",
        help="the model's by default, which is low; then --draw and --crop start from "
        f"{_SHOWN_FROM}",
    )
    model.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="overrides of the config"
    )
    output = result.add_argument_group("output")
    output.add_argument("--output", type=Path, default=Path("output/predict"), metavar="DIR")
    output.add_argument("--format", choices=FORMATS, default="json", help="default: %(default)s")
    output.add_argument("--draw", action="store_true", help="images and videos with boxes")
    output.add_argument("--blur", action="store_true", help="images and videos with blurred faces")
    output.add_argument("--crop", action="store_true", help="every face as an image")
    work = result.add_argument_group("work")
    work.add_argument("--batch-size", type=int, default=8, metavar="N", help="default: %(default)s")
    work.add_argument(
        "--max-pixels",
        type=int,
        default=2**23,
        metavar="N",
        help="images with more are searched in tiles (default: %(default)s)",
    )
    work.add_argument(
        "--max-frames", type=int, metavar="N", help="of a camera; without it Ctrl-C ends the run"
    )
    work.add_argument(
        "--shard",
        type=_shard,
        default=(1, 1),
        metavar="I/N",
        help="do the I-th of N parts; the command without --shard then puts all together",
    )
    launcher = result.add_argument_group("processes (with --config-file; Detectron2's launcher)")
    launcher.add_argument("--num-gpus", type=int, default=0, metavar="N", help="GPUs per machine")
    launcher.add_argument(
        "--num-processes", type=int, default=1, metavar="N", help="CPU processes per machine"
    )
    launcher.add_argument("--num-machines", type=int, default=1, metavar="N")
    launcher.add_argument("--machine-rank", type=int, default=0, metavar="I")
    launcher.add_argument("--dist-url", default="auto", metavar="URL")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``face-d2-predict``.

    Returns:
        0; 1 when an input failed; 130 when the run was stopped.
    """
    arguments = parser()
    options = arguments.parse_args(argv)
    if options.onnx and options.config_file:
        arguments.error("one model at a time: --config-file and --weights, or --onnx, not both")
    if not options.onnx and not options.config_file:
        arguments.error("give a model: --config-file and --weights, or --onnx")
    if options.config_file and not options.weights:
        arguments.error("--config-file needs --weights")
    if options.onnx and (options.device or options.opts or options.weights):
        arguments.error("--weights, --device and --opts are for --config-file")
    several = max(options.num_gpus, options.num_processes) * options.num_machines > 1
    if several and (options.onnx or options.shard != (1, 1)):
        arguments.error("--num-gpus and --num-processes go with --config-file, without --shard")
    try:
        return predict(options, several)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(_shown(f"error: {error}"), file=sys.stderr)
        return 1


def predict(options: argparse.Namespace, several: bool = False) -> int:
    """Does what the command line says; see :func:`main`.

    Args:
        options: of :func:`parser`.
        several: spread the work over processes.
    """
    options.sources = find_sources(options.inputs, options.output)
    if options.format == "txt":
        check_text_names(options.sources)
    _check_settings(options)
    _check_pictures(options)
    print(_shown(f"{len(options.sources)} inputs to {options.output}"), file=sys.stderr)
    if several:
        import face_d2.register  # noqa: F401  isort: skip  (before Detectron2)
        from face_d2.engine.launch import launch

        launch(_work_of_rank, options)
    else:
        _Run(options, options.shard).work(options.sources)
    if options.machine_rank or options.shard != (1, 1):
        return 0  # the whole is put together elsewhere
    journal = Journal(options.output)
    print(_shown(write_format(options.format, journal, options.sources)))
    failed = [r for r in journal.records(options.sources) if "error" in r]
    journal.close()
    for record in failed:
        print(_shown(f"{record['name']}: {record['error']}"), file=sys.stderr)
    return int(bool(failed))


def _work_of_rank(options: argparse.Namespace) -> None:
    """One of the launcher's processes."""
    from detectron2.utils import comm

    _Run(options, (comm.get_rank() + 1, comm.get_world_size())).work(options.sources)
    comm.synchronize()  # the first process leaves, and puts the whole together, last


class _Run:
    """One process's work."""

    def __init__(self, options: argparse.Namespace, shard: tuple[int, int]) -> None:
        self.detector = _detector(options)
        self.shard = shard
        self.output: Path = options.output
        self.painters = _painters(options)
        self.crop: bool = options.crop
        self.max_frames: int | None = options.max_frames
        self.shown_from = 0.0 if options.score_threshold is not None else _SHOWN_FROM
        self.journal = Journal(self.output, shard, partial(_pictures, options))

    def work(self, sources: Sequence[Source]) -> None:
        """Goes through this process's part of ``sources``, what is not done yet."""
        part, parts = self.shard
        own = sources[part - 1 :: parts]
        left = [source for source in own if not self.journal.is_done(source)]
        print(f"{self.detector.runtime}, part {part} of {parts}", file=sys.stderr)
        if len(left) < len(own):
            print(f"{len(own) - len(left)} of {len(own)} were done before", file=sys.stderr)
        images = [source for source in left if source.kind == "image"]
        with tqdm(total=len(images), unit="image", disable=not images or part > 1) as progress:
            results = self.detector.stream(source.file for source in images)
            for source, result in zip(images, results):
                if result.error is None and (self.painters or self.crop):
                    try:
                        self._save(source, load_image(source.file), result)
                    except (ValueError, OSError) as error:  # a name or size that cannot be written
                        result = FaceResult.of_error(error, source.file)
                self.journal.add(source, make_record(source, result, self.detector.levels))
                progress.update()
        for source in left:
            if source.kind != "image":
                try:
                    self._work_on_video(source)
                except (ValueError, OSError) as error:
                    record = {"file": source.file, "name": source.name, "error": str(error)}
                    self.journal.add(source, record)
        self.journal.close()

    def _save(self, source: Source, image: NDArray[np.uint8], result: FaceResult) -> None:
        for name in self.painters:
            save_image(self._painted(name, image, result), self.output / name / source.name)
        self._forget_crops(source)
        self._save_crops(image, result, self.output / "crops" / source.name, "")

    def _painted(
        self, painter: str, image: NDArray[np.uint8], result: FaceResult
    ) -> NDArray[np.uint8]:
        return _PAINTERS[painter](image, result if painter == "blurred" else self._shown(result))

    def _shown(self, result: FaceResult) -> FaceResult:
        number = int((result.scores >= self.shown_from).sum())  # the best come first
        return replace(
            result,
            boxes=result.boxes[:number],
            scores=result.scores[:number],
            levels=result.levels[:number],
        )

    def _forget_crops(self, source: Source) -> None:
        """Removes the crops of what the file was before it changed."""
        for crop in (self.output / "crops" / source.name).glob("*.png"):
            crop.unlink()

    def _save_crops(
        self, image: NDArray[np.uint8], result: FaceResult, folder: Path, prefix: str
    ) -> None:
        if self.crop:
            for number, face in enumerate(crop_faces(image, self._shown(result)), start=1):
                save_image(face, folder / f"{prefix}{number:04d}.png")

    def _work_on_video(self, source: Source) -> None:
        self.journal.begin(source)
        self._forget_crops(source)
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(VideoReader(source))
            file = picture_name(source.name, video=True)
            sinks = {
                name: stack.enter_context(VideoSink(self.output / name / file, reader.fps))
                for name in self.painters
            }
            total = self.max_frames if source.kind == "camera" else reader.frames
            progress = stack.enter_context(
                tqdm(total=total or None, unit="frame", disable=self.shard[0] > 1)
            )
            waiting: deque[NDArray[np.uint8]] = deque()
            count = 0
            for result in self.detector.stream(self._frames(source, reader, waiting)):
                frame = waiting.popleft()
                for name, sink in sinks.items():
                    sink.write(self._painted(name, frame, result))
                self._save_crops(
                    frame, result, self.output / "crops" / source.name, f"{count:06d}-"
                )
                time = round(count / reader.fps, 6)
                self.journal.add(
                    source,
                    make_record(source, result, self.detector.levels, frame=count, time=time),
                )
                count += 1
                progress.update()
        self.journal.add(source, {"file": source.file, "name": source.name, "frames": count})
        if count < reader.frames and source.kind == "video":
            announced = f"{reader.frames} frames are announced"
            print(_shown(f"{source.name}: {announced}, {count} could be decoded"), file=sys.stderr)

    def _frames(
        self, source: Source, reader: VideoReader, waiting: deque[NDArray[np.uint8]]
    ) -> Iterator[NDArray[np.uint8]]:
        """The frames, each also put aside until its result is there."""
        for number, frame in enumerate(reader):
            if source.kind == "camera" and number == self.max_frames:
                return
            waiting.append(frame)
            yield frame


def _detector(options: argparse.Namespace) -> FaceDetector:
    settings = {"max_pixels": options.max_pixels, "batch_size": options.batch_size}
    if options.onnx:
        return FaceDetector.from_onnx(
            options.onnx,
            runtime=options.runtime,
            score_threshold=options.score_threshold,
            **settings,
        )
    return FaceDetector.from_config(
        options.config_file,
        options.weights,
        device=options.device,
        score_threshold=options.score_threshold,
        overrides=options.opts,
        **settings,
    )


def _check_settings(options: argparse.Namespace) -> None:
    """Writes down what the results rest on, and refuses a folder that has others.

    Raises:
        ValueError: the folder holds results of other settings.
        FileNotFoundError: there is no such model file or config.
    """
    model = Path(options.onnx or options.weights)
    if not model.is_file():
        raise FileNotFoundError(f"{model}: no such file")
    settings: dict[str, Any] = {
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "config_file": options.config_file,
        "config_sha256": _config_hash(options),
        "opts": options.opts,
        "score_threshold": options.score_threshold,
        "max_pixels": options.max_pixels,
        **{name: getattr(options, name) for name in ("draw", "blur", "crop")},
    }
    path = options.output / "run.json"
    # A run that failed before its first result, by a wrong option perhaps, left nothing to protect.
    results = any(journal.stat().st_size for journal in options.output.glob("journal*.jsonl"))
    if results and path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(k for k in settings if settings[k] != before.get(k))
        if changed:
            raise ValueError(
                f"{options.output} holds results made with other settings ({', '.join(changed)}); "
                "choose another --output, or delete that folder"
            )
        return
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _config_hash(options: argparse.Namespace) -> str | None:
    """Of all that the config says, its bases and the overrides included; none with --onnx."""
    if options.onnx:
        return None
    from face_d2.predictor.torch_backend import load_config

    config = load_config(options.config_file, options.opts)
    return hashlib.sha256(config.dump().encode()).hexdigest()


def _check_pictures(options: argparse.Namespace) -> None:
    """Refuses to write pictures of different files to one place.

    Raises:
        ValueError: two files would have the same picture, or an earlier run's has it.
    """
    if options.draw or options.blur or options.crop:
        journal = Journal(options.output, options.shard, partial(_pictures, options))
        journal.close()
        journal.check_pictures(options.sources)


def _painters(options: argparse.Namespace) -> list[str]:
    return [name for name, wanted in (("drawn", options.draw), ("blurred", options.blur)) if wanted]


def _pictures(options: argparse.Namespace, source: Source) -> list[str]:
    """What is made of a source, as paths in the output folder; the crops have a folder."""
    name = picture_name(source.name, video=source.kind != "image")
    painted = [f"{painter}/{name}" for painter in _painters(options)]
    return [*painted, f"crops/{source.name}"] if options.crop else painted


def _shown(what: object) -> str:
    """A text or path with what is not UTF-8 in it escaped."""
    return str(what).encode(errors="backslashreplace").decode()


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
