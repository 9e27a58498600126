"""Atomic replacement of files and folders, and the standard folders."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "cache_dir",
    "datasets_root",
    "replaced_file",
    "replaced_folder",
    "without_nan",
    "write_json",
    "write_text",
    "writing",
]


@contextmanager
def writing(file: str | Path) -> Iterator[None]:
    """Adds the name of the file to an OSError that has none, as that of a full disk.

    PyTorch reports a full disk as a RuntimeError about its archive; it becomes an OSError too.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise type(error)(error.errno, error.strerror, str(file)) from error
    except RuntimeError as error:
        if "inline_container.cc" not in str(error):
            raise
        raise OSError(f"{file}: cannot be written; is the disk full? ({error})") from error


@contextmanager
def replaced_file(file: str | Path) -> Iterator[Path]:
    """A path to write to, which replaces ``file`` when the block ends without error.

    At any time, and after any crash, ``file`` has either the old or the new content, because the
    new content is on disk before it is renamed. If the disk is full, the old file remains. A link
    remains a link to the file; a device or pipe, such as /dev/stdout, is written directly.

    Raises:
        OSError: the file cannot be written; the old one is unchanged.
    """
    file = Path(os.path.realpath(file))
    if file.exists() and not (file.is_file() or file.is_dir()):
        yield file
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    # Keep the end of a long name, so that the temporary name is not too long.
    temporary = file.with_name(f".tmp-{os.getpid()}-{file.name[-60:]}")
    try:
        with writing(file):
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder to fill, which replaces ``folder`` when the block ends without error.

    If the process is killed, the old folder remains, beside a ``.tmp-`` folder.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".tmp-{folder.name}-", dir=folder.parent))
    try:
        fresh, old = workplace / "new", workplace / "old"
        fresh.mkdir()
        yield fresh
        if folder.exists():
            os.replace(folder, old)
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def write_text(text: str, file: str | Path) -> None:
    """Writes UTF-8 text by :func:`replaced_file`."""
    with replaced_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(content: Any, file: str | Path) -> None:
    """Writes indented JSON by :func:`replaced_file`; see :func:`without_nan`."""
    write_text(json.dumps(without_nan(content), indent=1) + "\n", file)


def without_nan(value: Any) -> Any:
    """JSON data with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cache_dir() -> Path:
    """The cache folder: ``$FACE_D2_CACHE``, by default ``output/cache``."""
    return Path(os.environ.get("FACE_D2_CACHE", "output/cache"))


def datasets_root() -> Path:
    """The folder of the data sets: ``$DETECTRON2_DATASETS``, by default ``datasets``."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
