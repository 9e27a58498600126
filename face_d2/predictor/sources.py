"""What the command line was asked to look at."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Source", "find_sources"]

_IMAGES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
#: Searched for in folders; ".ts" is TypeScript's as well and must be asked for.
_SEARCHED_VIDEOS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"}
_VIDEOS = _SEARCHED_VIDEOS | {".ts"}


@dataclass(frozen=True)
class Source:
    """One image, video or camera.

    Attributes:
        kind: "image", "video" or "camera".
        file: absolute path, or the camera's index.
        name: what results call it: the path below what all files share, with slashes.
        stamp: size in bytes and time of change in nanoseconds; None for a camera.
    """

    kind: str
    file: str
    name: str
    stamp: tuple[int, int] | None = None


def find_sources(words: Sequence[str], output: Path | None) -> list[Source]:
    """Files, folders (searched to the bottom), globs, camera indices, and "-" for a list on stdin.

    Args:
        words: as given on the command line.
        output: files below it, an earlier run's pictures, are left out of folders and globs.

    Returns:
        Every file once: in the order of ``words``, those of a folder or glob sorted.

    Raises:
        FileNotFoundError: a word names nothing, or only a folder without images or videos, or the
            list on stdin is empty.
    """
    cameras: list[Source] = []
    files: dict[str, str] = {}  # absolute path -> folder its name starts from
    for word in _with_stdin(words):
        path = Path(word)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if _is_picture(p) and _outside(p, output))
            root = path
        elif path.exists():
            found, root = [path], path.parent
        elif glob.has_magic(word):
            found = sorted(
                p
                for p in map(Path, glob.glob(word, recursive=True))
                if _is_picture(p, path.suffix) and _outside(p, output)
            )
            root = Path(os.path.commonpath([p.parent for p in found])) if found else path
        elif word.isdecimal():
            cameras.append(Source("camera", word, f"camera-{word}"))
            continue
        else:
            raise FileNotFoundError(f"{word}: no such file or folder")
        if not found:
            raise FileNotFoundError(f"{word}: no images or videos there")
        for file in found:
            files.setdefault(os.path.abspath(file), os.path.abspath(root))
    if not files:
        return cameras
    top = os.path.commonpath(list(files.values()))
    named = [
        Source(
            "video" if Path(file).suffix.lower() in _VIDEOS else "image",
            file,
            Path(os.path.relpath(file, top)).as_posix(),
            _stamp(file),
        )
        for file in files
    ]
    return named + cameras


def _with_stdin(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word == "-":
            # Bytes, since names need not be UTF-8.
            lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")
            listed = list(filter(None, (line.rstrip("\r") for line in lines)))
            if not listed:
                raise FileNotFoundError("-: no files are listed on stdin")
            yield from listed
        else:
            yield word


def _stamp(file: str) -> tuple[int, int]:
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def _is_picture(path: Path, asked: str = "") -> bool:
    suffixes = _IMAGES | _SEARCHED_VIDEOS | (_VIDEOS & {asked.lower()})
    # ".tmp-" is what a killed run leaves of a picture it was writing.
    wanted = path.suffix.lower() in suffixes and not path.name.startswith(".")
    return wanted and path.is_file()


def _outside(path: Path, output: Path | None) -> bool:
    return output is None or output.resolve() not in path.resolve().parents
