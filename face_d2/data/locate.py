"""Finds image files by the names in label files, which may come from another system."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFolder",
    "has_image_suffix",
    "missing_images",
    "same_name",
    "visible_files",
]

#: Suffixes of image files when a folder is searched.
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".mpo", ".png", ".webp", ".bmp", ".gif"),
        *(".tif", ".tiff", ".avif"),
    )
)

_EXAMPLES = 3
_HINTED = 200  # maximum number of missing names for which a hint is searched
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")


class ImageFolder:
    """The images below a folder.

    Args:
        root: the folder. It is searched only if a name is not found as written.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def find(self, name: str) -> tuple[Path, str] | None:
        """Finds the file of a name.

        Args:
            name: a path relative to the folder, or an absolute path. The suffix ``.*`` matches any
                image suffix, and ``**/`` before the file name matches any folder.

        Returns:
            None, or the path and how the name differs from it: "" for no difference, "windows" for
            backslashes, "unicode" for another Unicode form, "case" for upper and lower case,
            "elsewhere" for an absolute path of another machine, of which the last parts match.
        """
        if name.endswith(".*"):
            files = self._stems.get(same_name(_clean(name[:-2])), [])
            return (self.root / files[0], "") if len(files) == 1 else None
        if name.startswith("**/"):
            files = self._bases.get(same_name(name[3:]), [])
            return (self.root / files[0], "elsewhere") if len(files) == 1 else None
        if found := self.find_as_written(name):
            return found
        name = name.replace("\\", "/")
        if name.startswith("/") or _DRIVE.match(name):
            return self._by_last_parts(name)
        files = self._names.get(same_name(_clean(name)), [])
        if len(files) != 1:
            return None
        return self.root / files[0], "unicode" if _same_letters(files[0], _clean(name)) else "case"

    def find_as_written(self, name: str) -> tuple[Path, str] | None:
        """Like :meth:`find`, but only for the name as written or with backslashes; no search."""
        for written, how in ((name, ""), (name.replace("\\", "/"), "windows")):
            path = self.root / written
            if os.path.isfile(path):
                return path, how
        return None

    def images(self) -> list[str]:
        """Paths of all images below the folder, relative to it with ``/``, sorted."""
        return self._files

    def hint(self, names: Sequence[str]) -> str:
        """A likely reason why names are not found, and what to do; "" if there is none."""
        for name in names[:_HINTED]:
            written = _clean(name.replace("\\", "/"))
            parts = written.split("/")
            if "\\" in name and os.path.isfile(self.root / written):
                return "the names have backslashes, but this system needs '/'"
            tail = self.root.absolute().parts
            for count in range(1, len(parts)):
                if os.path.isfile(self.root / "/".join(parts[count:])):
                    lead = "/".join(parts[:count])
                    if tail[-count:] == tuple(parts[:count]):
                        parent = Path(*tail[:-count])
                        return f"the names begin with {lead}/ already; give {parent} as the folder"
                    return f"they exist without the leading {lead}/ of the names"
            if found := self._names.get(same_name(written)):
                same = _same_letters(found[0], written)
                how = "another Unicode form" if same else "other upper and lower case"
                return f"{found[0]!r} exists, in {how}"
            if found := self._bases.get(same_name(parts[-1])):
                folder = Path(found[0]).parent.as_posix()
                return f"{parts[-1]} is in {self.root / folder}"
            if self.root.name and os.path.isfile(self.root.parent / written):
                return f"they are in {self.root.parent}; give this folder"
        return ""

    def _by_last_parts(self, name: str) -> tuple[Path, str] | None:
        parts = _clean(name).split("/")
        for start in range(1, len(parts)):
            found = self._names.get(same_name("/".join(parts[start:])), [])
            if len(found) == 1:
                return self.root / found[0], "elsewhere"
        return None

    @cached_property
    def _files(self) -> list[str]:
        return sorted(_images_below(self.root))

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        return _by_key((file, file) for file in self._files)

    @cached_property
    def _bases(self) -> dict[str, list[str]]:
        return _by_key((file.rpartition("/")[2], file) for file in self._files)

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        return _by_key((file.removesuffix(Path(file).suffix), file) for file in self._files)


def has_image_suffix(name: str) -> bool:
    """Whether a name has the suffix of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def same_name(name: str) -> str:
    """The form of a name in which Unicode forms, upper and lower case make no difference."""
    return unicodedata.normalize("NFC", name).casefold()


def missing_images(source: str | Path, folder: ImageFolder, names: Sequence[str], of: int) -> str:
    """The message for missing images: their number, examples, and a hint.

    Args:
        source: the file or folder of labels that names the images.
        folder: the folder that was searched.
        names: the missing names, as in the labels.
        of: number of all images in the labels.
    """
    hint = folder.hint(names) if folder.root.is_dir() else "the folder does not exist"
    return (
        f"{source}: {len(names)} of {of} annotated images are missing in {folder.root}, for "
        f"example {', '.join(names[:_EXAMPLES])}{f' ({hint})' if hint else ''}."
    )


def visible_files(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder below a folder, and the names of its files that are not hidden.

    Links are followed, and each folder is searched once.
    """
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(n for n in subfolders if not n.startswith((".", "__MACOSX")))
        yield folder, [name for name in files if not name.startswith(".")]


def _images_below(root: Path) -> Iterator[str]:
    for folder, names in visible_files(root):
        lead = Path(folder).relative_to(root).as_posix()
        for name in filter(has_image_suffix, names):
            yield name if lead == "." else f"{lead}/{name}"


def _by_key(pairs: Iterator[tuple[str, str]]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name, file in pairs:
        found[same_name(name)].append(file)
    return found


def _same_letters(one: str, other: str) -> bool:
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def _clean(name: str) -> str:
    """The name without "." and "a/.." parts."""
    return os.path.normpath(name).replace("\\", "/") if name else name
