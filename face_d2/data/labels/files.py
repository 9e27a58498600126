"""Finds and reads label files; errors name the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from face_d2.utils.known_mistake import known_mistake

__all__ = ["files_below", "read_json", "read_xml"]

#: Text files beside labels that contain no labels.
NOT_LABELS = ("classes.txt", "obj.names", "readme.txt", "readme.roboflow.txt", "readme.dataset.txt")


def read_json(path: Path) -> Any:
    """The content of a json file, without a byte order mark; a ValueError if it is not valid."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # from json or from decoding the text
        reason = known_mistake(path) or str(error)[:100]
        raise ValueError(f"{path}: not valid json ({reason}).") from None


def read_xml(path: Path) -> ElementTree.Element:
    """The root element of an xml file; a ValueError if it is not valid."""
    try:
        return ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        reason = known_mistake(path) or str(error)[:100]
        raise ValueError(f"{path}: not valid xml ({reason}).") from None


def files_below(folder: Path, suffix: str) -> list[Path]:
    """Files with a suffix below a folder, sorted, without hidden files and files of other data.

    Links are followed, as for images, and each folder is searched once.
    """
    found, seen = [], set()
    for parent, subfolders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(n for n in subfolders if not n.startswith((".", "__MACOSX")))
        for name in files:
            lower = name.lower()
            if lower.endswith(suffix) and not name.startswith(".") and lower not in NOT_LABELS:
                found.append(Path(parent) / name)
    return sorted(found)
