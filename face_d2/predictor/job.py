"""A prediction run over files, folders, videos and cameras, which can be stopped and resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from face_d2.predictor.api import FaceDetector
from face_d2.predictor.drawing import STYLES
from face_d2.predictor.records import Journal, check_text_names, write_format
from face_d2.predictor.sources import Inputs, Source, find_inputs
from face_d2.predictor.work import Pictures, Worker, escaped, say
from face_d2.utils.choices import check_choice
from face_d2.utils.files import write_json

__all__ = ["SHOWN_FROM", "PredictJob", "escaped", "predict"]

#: Minimum score of faces for --draw and --crop without --score-threshold. The model's own threshold
#: is low, for complete precision-recall curves. --blur starts lower, see PredictJob.
SHOWN_FROM = 0.5
#: Settings of runs that did not record them.
_EARLIER = {"first_page": True, "redact": "blur", "keep_exif": False, "min_size": 0}


@dataclass(frozen=True)
class PredictJob:
    """The inputs, the model and the outputs of a prediction run.

    Attributes:
        inputs: images, videos, folders, globs, camera indices, or "-" for a list on stdin.
        output: the folder for everything that is written.
        config_file, weights, device, opts: a model in PyTorch; see ``FaceDetector.from_config``.
        onnx, runtime: an exported model instead; see ``FaceDetector.from_onnx``.
        score_threshold: minimum score of detections, exclusive; None keeps the model's.
        hiding_threshold: minimum score of faces that --blur hides without a ``score_threshold``,
            exclusive; None hides all detections.
        min_size: minimum length of the longer side of a box, in pixels; smaller faces are left out.
        format: one of :data:`face_d2.predictor.records.FORMATS`.
        draw, blur, crop: which images to write in addition to the records.
        redact: how --blur hides faces, one of :data:`face_d2.predictor.drawing.STYLES`.
        keep_exif: keep the EXIF data (place, time, camera) in written images.
        first_page: search only the first page of a TIFF or the first frame of an animation.
        batch_size, max_pixels: see :class:`face_d2.FaceDetector`.
        max_frames: maximum number of frames of a camera; None for no limit.
        shard: (I, N), process only the I-th of N parts.
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
    hiding_threshold: float | None = None
    min_size: float = 0
    format: str = "json"
    draw: bool = False
    blur: bool = False
    crop: bool = False
    redact: str = "blur"
    keep_exif: bool = False
    first_page: bool = False
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
        """Whether several processes share the work."""
        return max(self.num_gpus, self.num_processes) * self.num_machines > 1

    @property
    def pictures(self) -> Pictures:
        """The images to write in addition to the records."""
        return Pictures(
            self.output,
            draw=self.draw,
            redact=self.redact if self.blur else "",
            crop=self.crop,
            shown_from=_shown_from(self),
            hidden_above=_hidden_above(self),
            keep_exif=self.keep_exif,
        )


def predict(job: PredictJob) -> int:
    """Runs a job, and continues it if it was stopped before.

    Returns:
        0, or 1 if an input failed or a file or folder in the inputs could not be opened.

    Raises:
        ValueError, OSError, ImportError: the job cannot start, because a setting is wrong or a file
            is missing.
    """
    check_choice("redact", job.redact, STYLES)
    inputs = find_inputs(job.inputs, job.output, job.first_page)
    job = replace(job, sources=tuple(inputs.sources))
    if job.format == "txt":
        check_text_names(job.sources)
    _check_settings(job)
    if job.draw or job.blur or job.crop:
        journal = Journal(job.output, job.shard, job.pictures.of)
        journal.close()
        journal.check_pictures(job.sources)
    say(f"{len(job.sources)} inputs to {job.output}")
    if job.in_processes:
        import face_d2.register  # isort: skip  (before Detectron2)
        from face_d2.engine.launch import launch

        launch(_work_of_rank, job)
    else:
        _work(job, job.shard)
    if job.machine_rank or job.shard != (1, 1):
        return 0  # the run without --shard writes the results
    journal = Journal(job.output)
    print(escaped(write_format(job.format, journal, job.sources)))
    count, hidden, failed = 0, 0, []
    for record in journal.records(job.sources):  # lazily, since a video has one record per frame
        scores = [face["score"] for face in record.get("faces", [])]
        count += sum(score > _shown_from(job) for score in scores)
        hidden += sum(score > _hidden_above(job) for score in scores)
        if "error" in record:
            failed.append(record)
    journal.close()
    _say_found(job, count)
    if job.blur:
        _say_hidden(job, hidden)
    for record in failed:
        say(f"{record['name']}: {record['error']}")
    _say_left_out(job, inputs)
    return int(bool(failed) or any(one.failed for one in inputs.left_out))


def _say_left_out(job: PredictJob, inputs: Inputs) -> None:
    """Reports what was not searched: everything in a file, examples on stderr."""
    path = job.output / "not_searched.json"
    path.unlink(missing_ok=True)
    if inputs.left_out:
        write_json([asdict(one) for one in inputs.left_out], path)
        for line in inputs.summary():
            say(line)
    if job.blur and not job.keep_exif and any(one.kind == "image" for one in inputs.sources):
        lost = "EXIF data (place, time, camera) are not in the blurred pictures"
        say(f"{lost}; --keep-exif keeps them")


def _say_found(job: PredictJob, count: int) -> None:
    """Reports the number of faces and the folders of the pictures."""
    threshold = _shown_from(job)
    folders = job.pictures.painted + ["crops"] * job.crop
    places = "".join(f"; {job.output / folder}" for folder in folders)
    above = f" with a score above {threshold:g}" if threshold else ""
    say(f"{count} faces{above}{places}")


def _say_hidden(job: PredictJob, hidden: int) -> None:
    """Reports how many faces are hidden, by which threshold, and that others may be left."""
    threshold = _hidden_above(job)
    which = "all that were found"
    if threshold:
        which = f"those with a score above {threshold:g}, as this detector's model card recommends"
    say(f"{hidden} faces hidden: {which}; faces that were not found stay visible, check the copy")


def _shown_from(job: PredictJob) -> float:
    return 0.0 if job.score_threshold is not None else SHOWN_FROM


def _hidden_above(job: PredictJob) -> float:
    return 0.0 if job.score_threshold is not None else job.hiding_threshold or 0.0


def _work(job: PredictJob, shard: tuple[int, int]) -> None:
    Worker(_detector(job), job.sources, shard, job.pictures, job.max_frames).work()


def _work_of_rank(job: PredictJob) -> None:
    """The work of one process of the launcher."""
    from detectron2.utils import comm

    _work(job, (comm.get_rank() + 1, comm.get_world_size()))
    comm.synchronize()  # the first process then merges the results of all


def _detector(job: PredictJob) -> FaceDetector:
    names = ("score_threshold", "max_pixels", "batch_size", "min_size")
    settings = {name: getattr(job, name) for name in names}
    if job.onnx:
        return FaceDetector.from_onnx(job.onnx, runtime=job.runtime, **settings)
    return FaceDetector.from_config(
        job.config_file, job.weights, device=job.device, overrides=job.opts, **settings
    )


def _check_settings(job: PredictJob) -> None:
    """Records the settings, and refuses a folder with results of other settings."""
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
        **{name: getattr(job, name) for name in ("draw", "blur", "crop", "first_page")},
        "redact": job.redact if job.blur else None,
        "hidden_above": (_hidden_above(job) or None) if job.blur else None,
        "min_size": job.min_size,
        "keep_exif": job.keep_exif and (job.draw or job.blur),
    }
    path = job.output / "run.json"
    # A run that failed before its first result, e.g. by a wrong option, has nothing to protect.
    results = any(journal.stat().st_size for journal in job.output.glob("journal*.jsonl"))
    if results and path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(k for k in settings if settings[k] != before.get(k, _EARLIER.get(k)))
        if changed:
            raise ValueError(
                f"{job.output} holds results made with other settings ({', '.join(changed)}); "
                "choose another --output, or delete that folder"
            )
        return
    write_json(settings, path)


def _config_hash(job: PredictJob) -> str | None:
    """Hash of the config with its bases and the overrides; None with --onnx."""
    if job.onnx:
        return None
    from face_d2.config import load_config

    config = load_config(job.config_file, job.opts)
    return hashlib.sha256(config.dump().encode()).hexdigest()
