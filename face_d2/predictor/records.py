"""Results on disk: a journal that grows line by line, and the formats made of it in the end.

A record is a JSON object on one line. Of an image: ``file`` (absolute path), ``name``, ``height``,
``width``, ``faces`` (each ``box`` [x1, y1, x2, y2] in pixels, ``score``, ``level``), or ``error``
instead. Of a video one per frame, with ``frame`` (from 0) and ``time`` (seconds); of an image of
several pages or frames one per page, with ``page`` (from 0). In the journal alone these are framed
by a record with ``begins`` and one with ``frames``, their number, and every
record has its file's ``size`` and ``mtime_ns``: what is known of a file ends when the file changes.
The record that finishes a file has ``pictures``, the paths in the folder that are its own.
"""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from face_d2.predictor.results import FaceResult
from face_d2.predictor.sources import Source
from face_d2.utils.files import replaced_file, replaced_folder

__all__ = ["FORMATS", "Journal", "check_text_names", "make_record", "write_format"]

Record = dict[str, Any]
_Key = tuple[str, tuple[int, int] | None]  # file and stamp
_STAMP = ("size", "mtime_ns")  # of Source.stamp
#: Bytes of a file name that are not UTF-8 become what JSON, too, has for them: caf\udce9.png.
_ERRORS = "backslashreplace"
_JOURNAL_ONLY = {*_STAMP, "pictures"}


def make_record(
    source: Source, result: FaceResult, levels: Sequence[str], **frame: float
) -> Record:
    """The record of an image, of a frame (with ``frame`` and ``time``), of a page (``page``)."""
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
    """The records of a folder, this run's and those of runs before it.

    Only where records begin is kept in memory. A line that a killed run left half written is
    skipped. An image that failed is tried again; so is a video that was not finished, and a file
    that has changed since, or whose pictures have other names now. Records that tell no size and
    time count for whatever the file is now.

    Args:
        folder: holds ``journal.jsonl``, or one for every part of a divided run.
        shard: this run's part and their number, from 1; (1, 1) for a whole run.
        pictures: the files and folders that are made of a source, as paths in ``folder``.
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
        self._owners: dict[str, _Key] = {}  # picture -> of which file it is now
        # The journal last written to comes last: its pictures lie there.
        for path in sorted(folder.glob("journal*.jsonl"), key=lambda p: (p.stat().st_mtime_ns, p)):
            self._read(path)
        self._mend_last_line()
        self._file = self.path.open("a", encoding="utf-8", errors=_ERRORS)

    def add(self, source: Source, record: Record) -> None:
        """Appends a record of ``source``; it is on its way to the disk when this returns."""
        place = (self.path, self._file.tell())
        if source.stamp is not None:
            record = {**record, **dict(zip(_STAMP, source.stamp))}
        pictures = self._pictures(source)
        if pictures and not {"begins", "frame", "page", "error"} & record.keys():
            record = {**record, "pictures": pictures}
            self._owners.update(dict.fromkeys(pictures, _key(record)))
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()
        self._note(record, place)

    def is_done(self, source: Source) -> bool:
        """Whether an image was read or a video finished; a camera or stream never is."""
        owners = [self._owners.get(picture) for picture in self._pictures(source)]
        return source.kind in ("image", "video") and any(
            key in self._finished and all(owner == key for owner in owners) for key in _keys(source)
        )

    def check_pictures(self, sources: Sequence[Source]) -> None:
        """Refuses pictures of one file in the place of another's, of this run or an earlier one.

        Raises:
            ValueError: naming the picture and both files.
        """
        owners = {picture: file for picture, (file, _) in self._owners.items()}
        for source in sources:
            for picture in self._pictures(source):
                owner = owners.setdefault(picture, source.file)
                if owner != source.file:
                    raise ValueError(
                        f"{self.folder / picture} is that of {owner} and would be that of "
                        f"{source.file} too; choose another --output for one of them"
                    )

    def begin(self, source: Source) -> None:
        """A video begins: what an earlier, unfinished run found in it no longer counts."""
        self.add(source, {"file": source.file, "name": source.name, "begins": True})

    def records(self, sources: Sequence[Source]) -> Iterator[Record]:
        """The records of ``sources`` in their order, frames in theirs."""
        files: dict[Path, Any] = {}
        try:
            for source in sources:
                known = (self._places[key] for key in _keys(source) if key in self._places)
                for path, offset in next(known, _Places()):
                    if path not in files:
                        files[path] = path.open("rb")
                    files[path].seek(offset)
                    record = json.loads(files[path].readline())
                    # Under the name of this run, should more inputs have changed it.
                    record["name"] = source.name
                    yield {key: value for key, value in record.items() if key not in _JOURNAL_ONLY}
        finally:
            for file in files.values():
                file.close()

    def close(self) -> None:
        """Closes the journal."""
        self._file.close()

    def _read(self, path: Path) -> None:
        before = frozenset(self._finished)  # another journal's failed attempt does not replace it
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

    def _mend_last_line(self) -> None:
        """Cuts off what a killed run left of its last line."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self.path.open("r+b") as file:
                file.truncate(whole)


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
    """Which frame or page a record is of."""
    return record.get("frame", record.get("page", otherwise))


def _key(record: Record) -> _Key:
    size, time = (record.get(name) for name in _STAMP)
    return record["file"], None if size is None else (size, time)


def _keys(source: Source) -> list[_Key]:
    """Under which a journal may know ``source``: as it is now, or without size and time."""
    return [(source.file, source.stamp), (source.file, None)]


def check_text_names(sources: Sequence[Source]) -> None:
    """Refuses what the text format cannot hold or tell apart.

    Raises:
        ValueError: two images differ in their suffix only, a name has more than one line, or a
            source is no image.
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
    """Turns the journal into the format asked for; nobody ever sees half a file.

    Args:
        kind: one of ``FORMATS``.
        journal: holds the records.
        sources: which ones, and in which order.

    Returns:
        The file, or the folder of the text format.
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
    """One row per face; ``frame`` is empty for images of one page, and otherwise frame or page.

    A picture, page or frame without a face has a row without a box; what failed says why.
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
    """A COCO data set with a ``score`` in every annotation; frames and pages are "name#number"."""
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
    """The WIDER FACE exchange format, as ``tools/evaluate_widerface.py`` reads it."""
    from face_d2.evaluation.wider_face.files import format_detections

    folder = journal.folder / "txt"
    with replaced_folder(folder) as fresh:  # without what is no input any more
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
