"""Finds and reads label files; errors name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from face_d2.data.locate import visible_files
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

    The folders are searched as by :func:`face_d2.data.locate.visible_files`.
    """
    return sorted(
        Path(parent) / name
        for parent, names in visible_files(folder)
        for name in names
        if name.lower().endswith(suffix) and name.lower() not in NOT_LABELS
    )
