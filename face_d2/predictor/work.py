"""The part of a prediction run that one process does."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from face_d2.data.image_file import read_pages
from face_d2.predictor.api import FaceDetector
from face_d2.predictor.copies import Page, PictureSink, copy_format, read_page, read_pages_as_stored
from face_d2.predictor.drawing import crop_faces, draw_faces, picture_name, redact_faces, save_image
from face_d2.predictor.hidden_video import HiddenVideo
from face_d2.predictor.images import load_image
from face_d2.predictor.records import Journal, make_record
from face_d2.predictor.results import FaceResult, first_faces
from face_d2.predictor.sources import Source
from face_d2.predictor.steady import SteadyFaces, SteadyFrame
from face_d2.predictor.video import Frame, open_reader, open_sink

__all__ = ["Pictures", "Worker", "escaped", "say"]

#: Formats whose frames follow each other in time; the pages of others do not.
_ANIMATED = ("AVIF", "GIF", "PNG", "WEBP")
_Image = NDArray[np.uint8]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Pictures:
    """The pictures that a run writes.

    Attributes:
        folder: the output folder.
        draw, redact, crop: which pictures to write; ``redact`` is a style of
            :func:`face_d2.predictor.drawing.redact_faces`, or "".
        shown_from: minimum score of faces that are drawn or cropped.
        hidden_above: minimum score of faces that are hidden, exclusive.
        keep_exif: whether pictures keep their EXIF data.
    """

    folder: Path
    draw: bool = False
    redact: str = ""
    crop: bool = False
    shown_from: float = 0.0
    hidden_above: float = 0.0
    keep_exif: bool = False

    @property
    def painted(self) -> list[str]:
        """The folders of the drawn and blurred pictures."""
        return ["drawn"] * self.draw + ["blurred"] * bool(self.redact)

    def of(self, source: Source) -> list[str]:
        """Paths in the output folder that are written for a source; crops have a folder."""
        painted = [f"{folder}/{picture_name(source)}" for folder in self.painted]
        return [*painted, f"crops/{source.name}"] if self.crop else painted

    def page(self, kind: str, page: Page, image: _Image, result: FaceResult) -> Page:
        """The "drawn" or "blurred" version of a page; ``image`` is the page as it was searched."""
        if kind == "drawn":
            return page.painted(self.drawn(image, result))
        return self.without(page, self.hidden(result).boxes)

    def without(self, page: Page, boxes: Iterable[NDArray[np.float32]]) -> Page:
        """A page whose faces in some boxes are hidden."""
        return replace(page, pixels=redact_faces(page.pixels, boxes, self.redact, page.colors))

    def drawn(self, image: _Image, result: FaceResult) -> _Image:
        """An image with boxes."""
        return draw_faces(image, self._shown(result))

    def hidden(self, result: FaceResult) -> FaceResult:
        """The faces to hide."""
        return result.above(self.hidden_above)

    def forget_crops(self, source: Source) -> None:
        """Removes the crops of an earlier version of the file."""
        for crop in (self.folder / "crops" / source.name).glob("*.png"):
            crop.unlink()

    def save_crops(self, source: Source, image: _Image, result: FaceResult, prefix: str) -> None:
        """Writes the faces of an image or frame, best score first."""
        if self.crop:
            faces = crop_faces(image, self._shown(result))
            for number, face in enumerate(faces, start=1):
                save_image(face, self.folder / "crops" / source.name / f"{prefix}{number:04d}.png")

    def _shown(self, result: FaceResult) -> FaceResult:
        return first_faces(result, int((result.scores >= self.shown_from).sum()))


class Worker:
    """Searches one part of the sources.

    Args:
        sources: the sources of all parts.
        shard: (I, N), this part and the number of parts, from 1.
        max_frames: maximum number of frames of a camera; None for no limit.
    """

    def __init__(
        self,
        detector: FaceDetector,
        sources: Sequence[Source],
        shard: tuple[int, int],
        pictures: Pictures,
        max_frames: int | None = None,
    ) -> None:
        self.detector, self.sources, self.shard = detector, sources, shard
        self.pictures, self.max_frames = pictures, max_frames
        self.journal = Journal(pictures.folder, shard, pictures.of)

    def work(self) -> None:
        """Searches the sources that are not finished yet."""
        part, parts = self.shard
        own = self.sources[part - 1 :: parts]
        left = [source for source in own if not self.journal.is_done(source)]
        say(f"{self.detector.runtime}, part {part} of {parts}")
        if len(left) < len(own):
            say(f"{len(own) - len(left)} of {len(own)} are finished already")
        single = [source for source in left if source.kind == "image" and source.pages == 1]
        paged = [source for source in left if source.kind == "image" and source.pages > 1]
        total = len(single) + sum(source.pages for source in paged)
        with tqdm(total=total, unit="image", disable=not total or part > 1) as progress:
            self._work_on_images(single, progress)
            for source in paged:
                with self._errors_are_of(source):
                    self._work_on_pages(source, progress)
        for source in left:
            if source.kind != "image":
                with self._errors_are_of(source):
                    self._work_on_video(source)
        self.journal.close()

    @contextlib.contextmanager
    def _errors_are_of(self, source: Source) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError) as error:
            self.journal.add(source, {"error": str(error)})

    def _work_on_images(self, images: Sequence[Source], progress: tqdm) -> None:
        results = self.detector.stream(source.file for source in images)
        for source, result in zip(images, results):
            if result.error is None and (self.pictures.painted or self.pictures.crop):
                try:
                    self._save(source, result)
                except (ValueError, OSError) as error:  # the picture cannot be written
                    result = FaceResult.from_error(error, source.file)
            self.journal.add(source, make_record(source, result, self.detector.levels))
            progress.update()

    def _save(self, source: Source, result: FaceResult) -> None:
        image = load_image(source.file)
        if self.pictures.painted:
            page = read_page(source.file, self.pictures.keep_exif)
            for kind in self.pictures.painted:
                with self._sink(kind, source) as sink:
                    sink.write(self.pictures.page(kind, page, image, result))
        self.pictures.forget_crops(source)
        self.pictures.save_crops(source, image, result, "")

    def _sink(self, kind: str, source: Source) -> PictureSink:
        path = self.pictures.folder / kind / picture_name(source)
        return PictureSink(path, copy_format(source.format))

    def _work_on_pages(self, source: Source, progress: tqdm) -> None:
        """Searches the pages of a TIFF or the frames of an animation, one batch in memory.

        Faces in an animation are tracked, as in a video. The pages of a TIFF need not show the same
        scene, so each is searched alone.
        """
        self.journal.begin(source)
        self.pictures.forget_crops(source)
        with contextlib.ExitStack() as stack:
            sinks = {
                kind: stack.enter_context(self._sink(kind, source))
                for kind in self.pictures.painted
            }
            keep = self.pictures.keep_exif
            pages = read_pages_as_stored(source.file, source.pages, keep) if sinks else None
            waiting: deque[_Image] = deque()
            images = _put_aside(read_pages(source.file), waiting)
            animation = None
            if "blurred" in sinks and source.format in _ANIMATED:
                animation = _HiddenAnimation(sinks.pop("blurred"), self.pictures)
            for number, result in enumerate(self.detector.stream(images)):
                image = waiting.popleft()
                if pages is not None:
                    page = next(pages)
                    for kind, sink in sinks.items():
                        sink.write(self.pictures.page(kind, page, image, result))
                    if animation is not None:
                        animation.write(page, image, result)
                self.pictures.save_crops(source, image, result, f"{number:06d}-")
                record = make_record(source, result, self.detector.levels, page=number)
                self.journal.add(source, record)
                progress.update()
            if animation is not None:
                animation.finish()
        self.journal.add(source, {"frames": source.pages})

    def _work_on_video(self, source: Source) -> None:
        self.journal.begin(source)
        self.pictures.forget_crops(source)
        live = source.kind in ("camera", "stream")
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(open_reader(source))
            name, folder = picture_name(source), self.pictures.folder
            sinks = {
                kind: stack.enter_context(open_sink(folder / kind / name, reader))
                for kind in self.pictures.painted
            }
            hidden = None
            if self.pictures.redact:
                tracks = folder / "tracks" / f"{source.name}.json"
                hidden = stack.enter_context(
                    HiddenVideo(sinks["blurred"], tracks, self.pictures.redact)
                )
            total = self.max_frames if live else reader.expected
            progress = stack.enter_context(
                tqdm(total=total or None, unit="frame", disable=self.shard[0] > 1)
            )
            waiting: deque[Frame] = deque()
            frames = _put_aside(islice(reader, self.max_frames if live else None), waiting)
            count = 0
            results = _UntilInterrupted(self.detector.stream(frame.pixels for frame in frames))
            if live:  # Ctrl-C is the way to end a recording; what was recorded is kept
                stack.enter_context(results)
            for result in results:
                frame = waiting.popleft()
                if self.pictures.draw:
                    drawn = self.pictures.drawn(frame.exact, result)
                    sinks["drawn"].write(frame.painted(drawn))
                if hidden is not None:
                    hidden.write(frame, self.pictures.hidden(result))
                if self.pictures.crop:
                    self.pictures.save_crops(source, frame.exact, result, f"{count:06d}-")
                times = {"frame": count, "time": frame.time}
                self.journal.add(source, make_record(source, result, self.detector.levels, **times))
                count += 1
                progress.update()
        self.journal.add(source, {"frames": count})
        if count < reader.frames and not live:
            say(f"{source.name}: {reader.frames} frames are declared, {count} could be decoded")
        if sinks and reader.loses:
            say(f"{source.name}: its copy lacks {'; '.join(reader.loses)}")
        if results.interrupted:
            raise KeyboardInterrupt


class _HiddenAnimation:
    """Hides faces in an animation, also in frames in which they are not found."""

    def __init__(self, sink: PictureSink, pictures: Pictures) -> None:
        self._sink, self._pictures = sink, pictures
        self._steady = SteadyFaces()
        self._pages: deque[Page] = deque()
        self._time = 0.0

    def write(self, page: Page, image: _Image, result: FaceResult) -> None:
        """Takes the next frame: as it is stored, as it was searched, and its faces."""
        self._pages.append(page)
        frame = Frame(image, self._time)
        self._write(self._steady.add(frame, self._pictures.hidden(result)))
        # What is shown for less than this, or for no stated time, browsers show for a tenth.
        shown = page.options.get("duration", 0)
        self._time += (shown if shown > 10 else 100) / 1000

    def finish(self) -> None:
        """Writes the frames that still wait."""
        self._write(self._steady.finish())

    def _write(self, frames: Iterable[SteadyFrame]) -> None:
        for frame in frames:
            boxes = [face.box for face in frame.shown]
            self._sink.write(self._pictures.without(self._pages.popleft(), boxes))


def _put_aside(items: Iterable[_Item], waiting: deque[_Item]) -> Iterator[_Item]:
    """Yields images or frames, and also keeps each of them until its result arrives."""
    for item in items:
        waiting.append(item)
        yield item


class _UntilInterrupted:
    """Results until Ctrl-C, which ends waiting for a result at once, and other work after it.

    As a context, it receives Ctrl-C. Otherwise Ctrl-C raises KeyboardInterrupt as usual.
    """

    def __init__(self, results: Iterator[FaceResult]) -> None:
        self._results = results
        self._waiting = False
        self.interrupted = False

    def __enter__(self) -> None:
        self._previous = signal.signal(signal.SIGINT, self._receive)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _receive(self, *_: object) -> None:
        self.interrupted = True
        if self._waiting:
            raise KeyboardInterrupt

    def __iter__(self) -> Iterator[FaceResult]:
        while not self.interrupted:
            try:
                self._waiting = True
                result = next(self._results, None)
                self._waiting = False
            except KeyboardInterrupt:
                if not self.interrupted:
                    raise
                return
            if result is None:
                return
            yield result


def escaped(what: object) -> str:
    """A text or path in which bytes that are not UTF-8 are escaped."""
    return str(what).encode(errors="backslashreplace").decode()


def say(text: str) -> None:
    """Prints a line to stderr, escaped."""
    print(escaped(text), file=sys.stderr)
