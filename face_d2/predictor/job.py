"""A prediction run over files, folders, videos and cameras, which can be stopped and resumed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_d2.predictor.api import FaceDetector
from face_d2.predictor.drawing import (
    blur_faces,
    crop_faces,
    draw_faces,
    picture_name,
    save_image,
)
from face_d2.predictor.images import load_image
from face_d2.predictor.records import (
    Journal,
    check_text_names,
    make_record,
    write_format,
)
from face_d2.predictor.results import FaceResult
from face_d2.predictor.sources import Source, find_sources
from face_d2.predictor.video import VideoReader, VideoSink
from face_d2.utils.files import replaced_file

__all__ = ["SHOWN_FROM", "PredictJob", "escaped", "predict"]

#: Kinds of pictures that --draw and --blur make: folder and function.
_PAINTERS: dict[str, Callable[[NDArray[np.uint8], FaceResult], NDArray[np.uint8]]] = {
    "drawn": draw_faces,
    "blurred": blur_faces,
}
#: Where no threshold is asked for, --draw and --crop leave out what the model itself doubts: it
#: reports all that counts for a precision-recall curve. --blur hides them all.
SHOWN_FROM = 0.5


@dataclass(frozen=True)
class PredictJob:
    """What to predict on, with which model, and what to write.

    Attributes:
        inputs: images, videos, folders, globs, camera indices, or "-" for a list on stdin.
        output: the folder for everything that is written.
        config_file, weights, device, opts: a model in PyTorch; see ``FaceDetector.from_config``.
        onnx, runtime: an exported model in its place; see ``FaceDetector.from_onnx``.
        score_threshold: detections score more than this; None takes the model's.
        format: one of :data:`face_d2.predictor.records.FORMATS`.
        draw, blur, crop: images to write beside the records.
        batch_size, max_pixels: see :class:`face_d2.FaceDetector`.
        max_frames: of a camera; None for no limit.
        shard: (I, N), do the I-th of N parts.
        num_gpus, num_processes, num_machines, machine_rank, dist_url: see
            :func:`face_d2.engine.launch.launch`.
        sources: filled in by :func:`predict`.
    """

    inputs: Sequence[str]
    output: Path
    config_file: str | None = None
    weights: str | None = None
    device: str | None = None
    opts: Sequence[str] = ()
    onnx: str | None = None
    runtime: str = "auto"
    score_threshold: float | None = None
    format: str = "json"
    draw: bool = False
    blur: bool = False
    crop: bool = False
    batch_size: int = 8
    max_pixels: int = 2**23
    max_frames: int | None = None
    shard: tuple[int, int] = (1, 1)
    num_gpus: int = 0
    num_processes: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    sources: tuple[Source, ...] = ()

    @property
    def in_processes(self) -> bool:
        """Whether the work is spread over processes."""
        return max(self.num_gpus, self.num_processes) * self.num_machines > 1


def predict(job: PredictJob) -> int:
    """Does a job; a job that was stopped goes on from where it was.

    Returns:
        0; 1 when an input failed.

    Raises:
        ValueError, OSError, ImportError: nothing can be done: a wrong setting, a missing file.
    """
    job = replace(job, sources=tuple(find_sources(job.inputs, job.output)))
    if job.format == "txt":
        check_text_names(job.sources)
    _check_settings(job)
    _check_pictures(job)
    print(escaped(f"{len(job.sources)} inputs to {job.output}"), file=sys.stderr)
    if job.in_processes:
        import face_d2.register  # isort: skip  (before Detectron2)
        from face_d2.engine.launch import launch

        launch(_work_of_rank, job)
    else:
        _Run(job, job.shard).work()
    if job.machine_rank or job.shard != (1, 1):
        return 0  # the whole is put together elsewhere
    journal = Journal(job.output)
    print(escaped(write_format(job.format, journal, job.sources)))
    failed = [r for r in journal.records(job.sources) if "error" in r]
    journal.close()
    for record in failed:
        print(escaped(f"{record['name']}: {record['error']}"), file=sys.stderr)
    return int(bool(failed))


def _work_of_rank(job: PredictJob) -> None:
    """One of the launcher's processes."""
    from detectron2.utils import comm

    _Run(job, (comm.get_rank() + 1, comm.get_world_size())).work()
    comm.synchronize()  # the first process leaves, and puts the whole together, last


class _Run:
    """One process's work."""

    def __init__(self, job: PredictJob, shard: tuple[int, int]) -> None:
        self.detector = _detector(job)
        self.shard = shard
        self.sources = job.sources
        self.output = job.output
        self.painters = _painters(job)
        self.crop = job.crop
        self.max_frames = job.max_frames
        self.shown_from = 0.0 if job.score_threshold is not None else SHOWN_FROM
        self.journal = Journal(self.output, shard, partial(_pictures, job))

    def work(self) -> None:
        """Goes through this process's part of the sources, what is not done yet."""
        part, parts = self.shard
        own = self.sources[part - 1 :: parts]
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
        return _PAINTERS[painter](
            image, result if painter == "blurred" else self._above_threshold(result)
        )

    def _above_threshold(self, result: FaceResult) -> FaceResult:
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
            for number, face in enumerate(
                crop_faces(image, self._above_threshold(result)), start=1
            ):
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
            print(escaped(f"{source.name}: {announced}, {count} could be decoded"), file=sys.stderr)

    def _frames(
        self, source: Source, reader: VideoReader, waiting: deque[NDArray[np.uint8]]
    ) -> Iterator[NDArray[np.uint8]]:
        """The frames, each also put aside until its result is there."""
        for number, frame in enumerate(reader):
            if source.kind == "camera" and number == self.max_frames:
                return
            waiting.append(frame)
            yield frame


def _detector(job: PredictJob) -> FaceDetector:
    settings = {"max_pixels": job.max_pixels, "batch_size": job.batch_size}
    if job.onnx:
        return FaceDetector.from_onnx(
            job.onnx,
            runtime=job.runtime,
            score_threshold=job.score_threshold,
            **settings,
        )
    return FaceDetector.from_config(
        job.config_file,
        job.weights,
        device=job.device,
        score_threshold=job.score_threshold,
        overrides=job.opts,
        **settings,
    )


def _check_settings(job: PredictJob) -> None:
    """Writes down what the results rest on, and refuses a folder that has others.

    Raises:
        ValueError: the folder holds results of other settings.
        FileNotFoundError: there is no such model file or config.
    """
    model = Path(job.onnx or job.weights)
    if not model.is_file():
        raise FileNotFoundError(f"{model}: no such file")
    settings: dict[str, Any] = {
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "config_file": job.config_file,
        "config_sha256": _config_hash(job),
        "opts": job.opts,
        "score_threshold": job.score_threshold,
        "max_pixels": job.max_pixels,
        **{name: getattr(job, name) for name in ("draw", "blur", "crop")},
    }
    path = job.output / "run.json"
    # A run that failed before its first result, by a wrong option perhaps, left nothing to protect.
    results = any(journal.stat().st_size for journal in job.output.glob("journal*.jsonl"))
    if results and path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(k for k in settings if settings[k] != before.get(k))
        if changed:
            raise ValueError(
                f"{job.output} holds results made with other settings ({', '.join(changed)}); "
                "choose another --output, or delete that folder"
            )
        return
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _config_hash(job: PredictJob) -> str | None:
    """Of all that the config says, its bases and the overrides included; none with --onnx."""
    if job.onnx:
        return None
    from face_d2.config import load_config

    config = load_config(job.config_file, job.opts)
    return hashlib.sha256(config.dump().encode()).hexdigest()


def _check_pictures(job: PredictJob) -> None:
    """Refuses to write pictures of different files to one place.

    Raises:
        ValueError: two files would have the same picture, or an earlier run's has it.
    """
    if job.draw or job.blur or job.crop:
        journal = Journal(job.output, job.shard, partial(_pictures, job))
        journal.close()
        journal.check_pictures(job.sources)


def _painters(job: PredictJob) -> list[str]:
    return [name for name, wanted in (("drawn", job.draw), ("blurred", job.blur)) if wanted]


def _pictures(job: PredictJob, source: Source) -> list[str]:
    """What is made of a source, as paths in the output folder; the crops have a folder."""
    name = picture_name(source.name, video=source.kind != "image")
    painted = [f"{painter}/{name}" for painter in _painters(job)]
    return [*painted, f"crops/{source.name}"] if job.crop else painted


def escaped(what: object) -> str:
    """A text or path with what is not UTF-8 in it escaped."""
    return str(what).encode(errors="backslashreplace").decode()
