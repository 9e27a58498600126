"""Reading the files of labels: text, json and xml, with errors that name the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from face_d2.utils.known_mistake import known_mistake

__all__ = ["files_below", "read_json", "read_xml"]

#: Text files that lie beside labels and are none.
NOT_LABELS = ("classes.txt", "obj.names", "readme.txt", "readme.roboflow.txt", "readme.dataset.txt")


def read_json(path: Path) -> Any:
    """The content of a json file; a byte order mark is no part of it.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is no json.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # of json's and of the decoding
        reason = known_mistake(path) or str(error)[:100]
        raise ValueError(f"{path}: no json ({reason}).") from None


def read_xml(path: Path) -> ElementTree.Element:
    """The root element of an xml file.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is no xml.
    """
    try:
        return ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        reason = known_mistake(path) or str(error)[:100]
        raise ValueError(f"{path}: no xml ({reason}).") from None


def files_below(folder: Path, suffix: str) -> Iterator[Path]:
    """Files of an ending below a folder, sorted; without hidden ones and those of no labels."""
    found = []
    for parent, subfolders, files in os.walk(folder):
        subfolders[:] = sorted(n for n in subfolders if not n.startswith((".", "__MACOSX")))
        found += [
            Path(parent) / name
            for name in files
            if name.lower().endswith(suffix)
            and not name.startswith(".")
            and name.lower() not in NOT_LABELS
        ]
    return iter(sorted(found))
