"""Results on disk: a journal that is written during a run, and the final formats.

A record is a JSON object on one line. An image has one record with ``file`` (absolute path),
``name``, ``height``, ``width`` and ``faces`` (each with ``box`` [x1, y1, x2, y2] in pixels,
``score`` and ``level``), or with ``error`` instead. A video has one record per frame, with
``frame`` (from 0) and ``time`` (seconds). An image with several pages or frames has one record per
page, with ``page`` (from 0).

The journal contains more. The records of a video or a multi-page image come between one with
``begins`` and one with ``frames``, their number. Every record has the ``size`` and ``mtime_ns`` of
its file, so that records of a file that has changed no longer count. The last record of a file has
``pictures``, the paths of the pictures that were written for it.
"""

from __future__ import annotations

import csv
import json
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from face_d2.predictor.results import FaceResult
from face_d2.predictor.sources import Source
from face_d2.utils.files import replaced_file, replaced_folder, writing

__all__ = ["FORMATS", "Journal", "check_text_names", "make_record", "write_format"]

Record = dict[str, Any]
_Key = tuple[str, tuple[int, int] | None]  # file and stamp
_STAMP = ("size", "mtime_ns")  # of Source.stamp
#: Bytes of a file name that are not UTF-8 are escaped as in JSON: caf\udce9.png.
_ERRORS = "backslashreplace"
_JOURNAL_ONLY = {*_STAMP, "pictures"}


def make_record(
    source: Source, result: FaceResult, levels: Sequence[str], **frame: float
) -> Record:
    """The record of an image, of a video frame (``frame``, ``time``), or of a page (``page``)."""
    record: Record = {"file": source.file, "name": source.name, **frame}
    if result.error is not None:
        return {**record, "error": f"{type(result.error).__name__}: {result.error}"}
    faces = [
        {
            "box": [round(value, 3) for value in box],
            "score": round(score, 6),
            "level": levels[level] if level >= 0 else None,
        }
        for box, score, level in zip(
            result.boxes.tolist(), result.scores.tolist(), result.levels.tolist()
        )
    ]
    return {**record, "height": result.height, "width": result.width, "faces": faces}


class Journal:
    """The records of an output folder, from this run and from earlier ones.

    Only the positions of the records are kept in memory. An incomplete last line of a killed run is
    skipped. Images that failed, unfinished videos, files that have changed, and files whose
    pictures now have other names are processed again. Records without a size and a time are valid
    for any state of their file.

    Args:
        folder: the output folder, with ``journal.jsonl``, or one journal per part of a divided run.
        shard: the part of this run and the number of parts, from 1; (1, 1) is a whole run.
        pictures: returns the paths in ``folder`` of what is written for a source.
    """

    def __init__(
        self,
        folder: Path,
        shard: tuple[int, int] = (1, 1),
        pictures: Callable[[Source], Sequence[str]] = lambda source: (),
    ) -> None:
        self.folder = folder
        self._pictures = pictures
        part = "" if shard == (1, 1) else f".part-{shard[0]}-of-{shard[1]}"
        self.path = folder / f"journal{part}.jsonl"
        self._places: dict[_Key, _Places] = {}
        self._finished: set[_Key] = set()
        self._owners: dict[str, _Key] = {}  # picture -> the file that it shows
        # The newest journal comes last, because the pictures on disk are its own.
        for path in sorted(folder.glob("journal*.jsonl"), key=lambda p: (p.stat().st_mtime_ns, p)):
            self._read(path)
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # the last line of a killed run
            os.truncate(self.path, whole)
        self._file = self.path.open("a", encoding="utf-8", errors=_ERRORS)

    def add(self, source: Source, record: Record) -> None:
        """Appends a record of ``source``, completed by its file, and flushes it to the journal."""
        place = (self.path, self._file.tell())
        record = {"file": source.file, "name": source.name, **record}
        if source.stamp is not None:
            record = {**record, **dict(zip(_STAMP, source.stamp))}
        pictures = self._pictures(source)
        if pictures and not {"begins", "frame", "page", "error"} & record.keys():
            record = {**record, "pictures": pictures}
            self._owners.update(dict.fromkeys(pictures, _key(record)))
        with writing(self.path):
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()
        self._note(record, place)

    def is_done(self, source: Source) -> bool:
        """Whether an image or video is finished; always False for a camera or stream."""
        owners = [self._owners.get(picture) for picture in self._pictures(source)]
        return source.kind in ("image", "video") and any(
            key in self._finished and all(owner == key for owner in owners) for key in _keys(source)
        )

    def check_pictures(self, sources: Sequence[Source]) -> None:
        """Checks that no picture would overwrite that of another file, of this or an earlier run.

        Raises:
            ValueError: two files have the same picture; the message names all three.
        """
        owners = {picture: file for picture, (file, _) in self._owners.items()}
        for source in sources:
            for picture in self._pictures(source):
                owner = owners.setdefault(picture, source.file)
                if owner != source.file:
                    raise ValueError(
                        f"{self.folder / picture} would be the picture of both {owner} and "
                        f"{source.file}; choose another --output for one of them"
                    )

    def begin(self, source: Source) -> None:
        """Starts a video or multi-page image and drops its records of an unfinished earlier run."""
        self.add(source, {"begins": True})

    def records(self, sources: Sequence[Source]) -> Iterator[Record]:
        """The records of ``sources`` in the given order, frames and pages in ascending order."""
        files: dict[Path, Any] = {}
        try:
            for source in sources:
                known = (self._places[key] for key in _keys(source) if key in self._places)
                for path, offset in next(known, _Places()):
                    if path not in files:
                        files[path] = path.open("rb")
                    files[path].seek(offset)
                    record = json.loads(files[path].readline())
                    # With the name of this run, which depends on all inputs.
                    record["name"] = source.name
                    yield {key: value for key, value in record.items() if key not in _JOURNAL_ONLY}
        finally:
            for file in files.values():
                file.close()

    def close(self) -> None:
        self._file.close()

    def _read(self, path: Path) -> None:
        # A failed attempt in another journal does not replace what was finished before.
        before = frozenset(self._finished)
        offset = 0
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    record = json.loads(line)
                    self._owners.update(dict.fromkeys(record.get("pictures", ()), _key(record)))
                    if _key(record) not in before:
                        self._note(record, (path, offset))
                offset += len(line)

    def _note(self, record: Record, place: tuple[Path, int]) -> None:
        key = _key(record)
        if "begins" in record:
            self._places.pop(key, None)
            self._finished.discard(key)
            return
        if "frames" in record:
            self._finished.add(key)
            return
        self._places.setdefault(key, _Places()).add(_number(record, -1), *place)
        if "error" in record:
            self._finished.discard(key)
        elif _number(record) is None:
            self._finished.add(key)


class _Places:
    """Where the records of one file begin. A frame of a long video takes a few bytes."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._numbers, self._offsets, self._path_of = array("q"), array("q"), array("H")

    def add(self, number: int, path: Path, offset: int) -> None:
        """Notes the record of a frame or page; it takes the place of an earlier one."""
        if path not in self._paths:
            self._paths.append(path)
        self._numbers.append(number)
        self._offsets.append(offset)
        self._path_of.append(self._paths.index(path))

    def __iter__(self) -> Iterator[tuple[Path, int]]:
        """Journal and offset of every record, by number."""
        order = range(len(self._numbers))
        if any(later <= number for number, later in pairwise(self._numbers)):
            last = {number: index for index, number in enumerate(self._numbers)}
            order = [last[number] for number in sorted(last)]
        for index in order:
            yield self._paths[self._path_of[index]], self._offsets[index]


def _number(record: Record, otherwise: Any = None) -> Any:
    """The frame or page number of a record."""
    return record.get("frame", record.get("page", otherwise))


def _key(record: Record) -> _Key:
    size, time = (record.get(name) for name in _STAMP)
    return record["file"], None if size is None else (size, time)


def _keys(source: Source) -> list[_Key]:
    """The keys that records of ``source`` may have: with its size and time, or without."""
    return [(source.file, source.stamp), (source.file, None)]


def check_text_names(sources: Sequence[Source]) -> None:
    """Checks that the text format can represent all sources.

    Raises:
        ValueError: two images differ only in their suffix, a name has more than one line, or a
            source is not an image.
    """
    seen: dict[str, str] = {}
    for source in sources:
        if source.kind != "image":
            raise ValueError(f"--format txt is for images, and {source.name} is a {source.kind}")
        if {"\n", "\r"} & set(source.name):
            raise ValueError(
                f"{source.name!r}: a name of several lines cannot be written as text; rename the "
                "file or its folder, or choose another --format"
            )
        stem = _stem(source.name)
        if stem in seen:
            raise ValueError(f"{seen[stem]} and {source.name} would both become {stem}.txt")
        seen[stem] = source.name


def write_format(kind: str, journal: Journal, sources: Sequence[Source]) -> Path:
    """Writes the records of ``sources`` atomically, in a format of ``FORMATS``.

    Returns:
        The file that was written; for "txt" the folder.
    """
    if kind == "txt":
        return _write_texts(journal, sources)
    path = journal.folder / f"detections.{'coco.json' if kind == 'coco' else kind}"
    with (
        replaced_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors=_ERRORS, newline="") as file,
    ):
        _WRITERS[kind](lambda: journal.records(sources), file)
    return path


def _write_json(records: Callable[[], Iterator[Record]], file: TextIO) -> None:
    file.write("[")
    for index, record in enumerate(records()):
        file.write((",\n" if index else "\n") + json.dumps(record, ensure_ascii=False))
    file.write("\n]\n")


def _write_jsonl(records: Callable[[], Iterator[Record]], file: TextIO) -> None:
    for record in records():
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _write_csv(records: Callable[[], Iterator[Record]], file: TextIO) -> None:
    """One row per face; ``frame`` is the frame or page number, empty for images with one page.

    An image, page or frame without a face has one row without a box; ``error`` says what failed.
    """
    writer = csv.writer(file)
    writer.writerow(["name", "frame", "x1", "y1", "x2", "y2", "score", "level", "error"])
    for record in records():
        what = [record["name"], _number(record, "")]
        for face in record.get("faces", []):
            writer.writerow([*what, *face["box"], face["score"], face["level"], ""])
        if not record.get("faces"):
            writer.writerow([*what, *[""] * 6, record.get("error", "")])


def _write_coco(records: Callable[[], Iterator[Record]], file: TextIO) -> None:
    """COCO with a ``score`` per annotation; the file name of a frame or page is "name#number"."""
    file.write('{"categories": [{"id": 1, "name": "face"}],\n"images": [')
    readable = 0
    for record in records():
        if "error" in record:
            continue
        readable += 1
        number = _number(record)
        name = record["name"] + ("" if number is None else f"#{number}")
        image = {"id": readable, "file_name": name}
        image |= {"height": record["height"], "width": record["width"]}
        file.write((",\n" if readable > 1 else "\n") + json.dumps(image, ensure_ascii=False))
    file.write('],\n"annotations": [')
    images = faces = 0
    for record in records():
        images += "error" not in record
        for face in record.get("faces", []):
            faces += 1
            x1, y1, x2, y2 = face["box"]
            box = [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]
            annotation = {"id": faces, "image_id": images, "category_id": 1, "bbox": box}
            annotation |= {"area": round(box[2] * box[3], 3), "iscrowd": 0, "score": face["score"]}
            file.write((",\n" if faces > 1 else "\n") + json.dumps(annotation))
    file.write("]}\n")


def _write_texts(journal: Journal, sources: Sequence[Source]) -> Path:
    """The text format of WIDER FACE, which ``face-d2-evaluate widerface`` reads."""
    from face_d2.evaluation.wider_face.files import format_detections

    folder = journal.folder / "txt"
    with replaced_folder(folder) as fresh:  # without files of earlier inputs
        for record in journal.records(sources):
            if "error" in record:
                continue
            rows = [
                [x1, y1, x2 - x1, y2 - y1, face["score"]]
                for face in record["faces"]
                for x1, y1, x2, y2 in [face["box"]]
            ]
            stem = _stem(record["name"]) + (f"#{record['page']}" if record.get("page") else "")
            file = fresh / f"{stem}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(format_detections(stem, rows), encoding="utf-8", errors=_ERRORS)
    return folder


def _stem(name: str) -> str:
    """A name without its suffix, folders kept."""
    return PurePosixPath(name).with_suffix("").as_posix()


_WRITERS = {"json": _write_json, "jsonl": _write_jsonl, "csv": _write_csv, "coco": _write_coco}
FORMATS = (*_WRITERS, "txt")
