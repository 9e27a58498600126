"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replaced_file", "replaced_folder"]


@contextmanager
def replaced_file(file: str | Path) -> Iterator[Path]:
    """A path to write to; it takes the place of ``file`` when the block ends without error.

    Whoever reads ``file``, at any moment and after any crash, sees the old content or the new one:
    the new is on disk before it gets the name. A full disk is an error while the old is there. A
    link stays a link to the file; a device or pipe, such as /dev/stdout, is written to itself.

    Raises:
        OSError: it cannot be written; what was there before is untouched.
    """
    file = Path(os.path.realpath(file))
    if file.exists() and not (file.is_file() or file.is_dir()):
        yield file
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    # Of a long name the end, so that what may be as long as a name can be is not too long here.
    temporary = file.with_name(f".tmp-{os.getpid()}-{file.name[-60:]}")
    try:
        yield temporary
        handle = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(folder: str | Path) -> Iterator[Path]:
    """A fresh folder to fill; it takes the place of ``folder`` when the block ends without error.

    A run killed midway leaves the old content (and a ``.tmp-`` folder beside it), never a mixture.
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


def cache_dir() -> Path:
    """Folder for what can be made again: ``$FACE_D2_CACHE``, by default ``output/cache``."""
    return Path(os.environ.get("FACE_D2_CACHE", "output/cache"))
