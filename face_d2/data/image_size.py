"""Image sizes, read from the headers and cached between runs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from face_d2.data.image_file import UnreadableImageError, image_size
from face_d2.data.locate import ImageFolder, missing_images
from face_d2.utils.files import cache_dir, write_text

__all__ = ["UNREADABLE_SIZE", "image_sizes"]

#: The size of an image whose header cannot be read.
UNREADABLE_SIZE = (0, 0)

logger = logging.getLogger(__name__)


def image_sizes(root: str | Path, names: Sequence[str]) -> list[tuple[int, int]]:
    """(height, width) of every ``root/name``, in order; (0, 0) if the header cannot be read.

    Unreadable images are logged. The result is cached in :func:`cache_dir` by the names, sizes in
    bytes and times of change of the files, so changed files are read again.

    Raises:
        FileNotFoundError: files are missing; the message has their number, examples and a hint.
    """
    root = Path(root)
    digest = hashlib.sha256()
    missing = []
    for name in names:
        try:
            stat = os.stat(root / name)
        except FileNotFoundError:
            missing.append(name)
            continue
        # The time of modification alone is kept by tools that turn a picture, and by archives.
        times = f"{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
        digest.update(f"{name}\0{stat.st_size}\0{times}\n".encode())
    if missing:
        raise FileNotFoundError(missing_images(root, ImageFolder(root), missing, len(names)))
    cached = cache_dir() / "image_sizes" / f"{digest.hexdigest()[:32]}.json"
    sizes = _read_cache(cached, len(names))
    if sizes is None:
        sizes = [_size_or_unreadable(root / name) for name in names]
        _write_cache(cached, sizes)
    unreadable = [name for name, size in zip(names, sizes) if size == UNREADABLE_SIZE]
    if unreadable:
        logger.warning(
            "%s: %d of %d annotated images cannot be read, for example %s.",
            root,
            len(unreadable),
            len(names),
            ", ".join(unreadable[:3]),
        )
    return sizes


def _size_or_unreadable(path: Path) -> tuple[int, int]:
    try:
        return image_size(path)
    except UnreadableImageError:
        return UNREADABLE_SIZE


def _read_cache(path: Path, count: int) -> list[tuple[int, int]] | None:
    try:
        sizes = [(int(h), int(w)) for h, w in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):  # missing or damaged
        return None
    return sizes if len(sizes) == count else None


def _write_cache(path: Path, sizes: list[tuple[int, int]]) -> None:
    try:
        write_text(json.dumps(sizes), path)
    except OSError as error:
        logger.warning(
            "Image sizes are not cached (%s); they will be read again in the next run. "
            "Set FACE_D2_CACHE to a writable folder.",
            error,
        )
