"""The inputs of a prediction run: files are identified by their content, not by their suffix."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tqdm import tqdm

from face_d2.data.file_kind import FileKind, kind_of_file
from face_d2.data.image_file import PAGED_FORMATS, UnreadableImageError, page_count

__all__ = ["Inputs", "LeftOut", "Source", "find_inputs"]

#: Temporary files that a killed run leaves behind.
_UNFINISHED = ".tmp-"


@dataclass(frozen=True)
class Source:
    """One image, video or camera.

    Attributes:
        kind: "image", "video", "camera" or "stream".
        file: absolute path, the camera's index, or the stream's address without its password.
        name: its name in the results: the path relative to the common folder, with slashes.
        stamp: size in bytes and modification time in nanoseconds; None for a camera.
        format: format of an image according to its content ("JPEG"); "" if unknown.
        pages: number of pages or frames of an image that are searched.
        address: address of a stream as given; it may contain a password and is never printed.
    """

    kind: str
    file: str
    name: str
    stamp: tuple[int, int] | None = None
    format: str = ""
    pages: int = 1
    address: str = field(default="", repr=False)


@dataclass(frozen=True)
class LeftOut:
    """Something in a folder or glob that is not searched.

    Attributes:
        name: its path.
        reason: the reason, for example "neither a picture nor a video".
        failed: whether it may contain faces, so that the run is incomplete.
    """

    name: str
    reason: str
    failed: bool = False


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run.

    Attributes:
        sources: the inputs to search, in the order of the command line; the files of a folder or
            glob are sorted.
        left_out: all other files in the folders and globs.
    """

    sources: list[Source] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def summary(self, most: int = 5) -> list[str]:
        """One line per reason, with the number of files and the first names."""
        names: dict[tuple[bool, str], list[str]] = defaultdict(list)
        for one in self.left_out:
            names[one.failed, one.reason].append(one.name)
        lines = []
        for (_, reason), found in sorted(names.items(), reverse=True):
            listed = ", ".join(found[:most]) + (", ..." if len(found) > most else "")
            lines.append(f"not searched: {len(found)} x {reason} ({listed})")
        return lines


def find_inputs(
    words: Sequence[str], output: Path | None = None, first_page: bool = False
) -> Inputs:
    """Finds the inputs of a command line.

    A word is a file, a folder (searched recursively), a glob, a camera index, the address of a
    stream, or "-" for a list of words on stdin, one per line. Files in folders and globs are
    identified by their first bytes. A file that has the suffix of a picture or video, but not the
    content, is a source too: it is probably damaged, and reading it reports an error. Links are
    followed, and every folder is searched only once. A file that is given by name is always a
    source.

    Args:
        words: the words of the command line.
        output: the output folder, which is skipped in folders and globs.
        first_page: search only the first page or frame of an image.

    Raises:
        FileNotFoundError: a word matches nothing, a folder contains no image or video, or the list
            on stdin is empty.
    """
    search = _Search(output)
    cameras: list[Source] = []
    files: dict[str, tuple[str, FileKind]] = {}  # absolute path -> folder of its name, kind
    for word in _with_stdin(words):
        path = Path(word)
        if path.is_dir():
            found, root = search.matches([path]), path
        elif os.path.lexists(path):
            found, root = [(path, _named_kind(path))], path.parent
        elif "://" in word:
            cameras.append(_stream(word, {source.name for source in cameras}))
            continue
        elif glob.has_magic(word):
            matches = [Path(match) for match in glob.glob(word, recursive=True)]
            found = search.matches(matches, path.suffix.lower() == ".ts")
            root = Path(os.path.commonpath([p.parent for p, _ in found])) if found else path
        elif word.isdecimal():
            cameras.append(Source("camera", word, f"camera-{word}"))
            continue
        else:
            raise FileNotFoundError(f"{word}: no such file or folder")
        if not found:
            said = Inputs(left_out=search.left_out).summary()
            raise FileNotFoundError("\n".join([f"{word}: contains no images or videos", *said]))
        for file, kind in found:
            files.setdefault(os.path.abspath(file), (os.path.abspath(root), kind))
    search.progress.close()
    if not files:
        return Inputs(cameras, search.left_out)
    top = os.path.commonpath([root for root, _ in files.values()])
    sources = []
    for file, (_, kind) in files.items():
        name = Path(os.path.relpath(file, top)).as_posix()
        pages = 1 if first_page else _pages(file, kind)
        sources.append(Source(kind.kind, file, name, _stamp(file), kind.format, pages))
    return Inputs(sources + cameras, search.left_out)


class _Search:
    """Searches folders except ``output``, and records what is left out."""

    def __init__(self, output: Path | None) -> None:
        self._left_out: dict[str, LeftOut] = {}  # by absolute path
        self._output = None if output is None else output.resolve()
        self._entered: dict[tuple[int, int], str] = {}  # device and inode -> absolute path
        self.progress = tqdm(desc="looking at files", unit="", delay=2, leave=False)

    @property
    def left_out(self) -> list[LeftOut]:
        return list(self._left_out.values())

    def matches(
        self, paths: Iterable[Path], transport_streams: bool = False
    ) -> list[tuple[Path, FileKind]]:
        """The pictures and videos of a word: files, and what is below folders, sorted by path."""
        self._entered.clear()
        found: list[tuple[Path, FileKind]] = []

        def through_links(path: Path) -> tuple[bool, Path]:
            return os.path.realpath(path) != os.path.abspath(path), path

        for path in sorted(paths, key=through_links):  # real paths before links
            if path.is_dir():
                found += self._walk(path)
            elif not self._is_output(path) and self._is_first_name(path.parent):
                found += self._file(path, transport_streams)
        return sorted(found, key=lambda match: match[0])

    def _walk(self, folder: Path) -> Iterator[tuple[Path, FileKind]]:
        if self._is_output(folder):
            self._leave(folder, "the output folder")
            return
        try:
            first = self._is_first_name(folder)
            entries = sorted(folder.iterdir()) if first else []
        except OSError as error:
            self._leave(folder, f"folder that cannot be read: {error.strerror}", failed=True)
            return
        folders = []
        for entry in entries:
            if entry.is_dir():
                folders.append(entry)
            else:
                yield from self._file(entry)
        # Links last, so that a folder with several paths gets its real one.
        for entry in sorted(folders, key=Path.is_symlink):
            yield from self._walk(entry)

    def _file(self, path: Path, transport_streams: bool = False) -> Iterator[tuple[Path, FileKind]]:
        self.progress.update()
        if path.name.startswith(_UNFINISHED):
            self._leave(path, "temporary file of a killed run")
            return
        try:
            kind = kind_of_file(path, transport_streams)
        except OSError as error:
            broken = path.is_symlink() and not path.exists()
            reason = "broken link" if broken else f"cannot be opened: {error.strerror}"
            self._leave(path, reason, failed=True)
            return
        if kind.kind == "other":
            self._leave(path, kind.format)
        else:
            yield path, kind

    def _is_first_name(self, folder: Path) -> bool:
        """Whether the folder is new; otherwise it is recorded as left out."""
        status, here = folder.stat(), os.path.abspath(folder)
        if self._entered.setdefault((status.st_dev, status.st_ino), here) == here:
            return True
        self._leave(folder, "folder that is searched under another path")
        return False

    def _is_output(self, path: Path) -> bool:
        if self._output is None:
            return False
        resolved = path.resolve()
        return self._output == resolved or self._output in resolved.parents

    def _leave(self, path: Path, reason: str, failed: bool = False) -> None:
        self._left_out.setdefault(os.path.abspath(path), LeftOut(str(path), reason, failed))


def _named_kind(path: Path) -> FileKind:
    """Kind of a file that was given by name; never "other", since reading it reports errors."""
    try:
        kind = kind_of_file(path, transport_streams=True)
    except OSError:  # reading the file will report the error
        return FileKind("image", "")
    return FileKind("image", "") if kind.kind == "other" else kind


def _pages(file: str, kind: FileKind) -> int:
    if kind.kind != "image" or kind.format not in PAGED_FORMATS:
        return 1
    try:
        return page_count(file)
    except (UnreadableImageError, OSError):  # reading the file will report the error
        return 1


def _stream(address: str, taken: set[str]) -> Source:
    """A stream; its name has no user, password or query, which can be secret."""
    parts = urlsplit(address)
    host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    shown = urlunsplit((parts.scheme, host, parts.path, "", ""))
    plain = re.sub(r"[^\w.]+", "-", shown).strip("-")
    name = next(n for n in chain([plain], (f"{plain}-{i}" for i in count(2))) if n not in taken)
    return Source("stream", shown, name, address=address)


def _with_stdin(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word == "-":
            # Bytes, because file names may not be UTF-8.
            lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")
            listed = list(filter(None, (line.rstrip("\r") for line in lines)))
            if not listed:
                raise FileNotFoundError("-: the list on stdin is empty")
            yield from listed
        else:
            yield word


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:  # a broken link
        return None
    return status.st_size, status.st_mtime_ns
