"""Lines and counts of annotation and detection files, however damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["numbered_lines", "parse_count", "quoted"]

_MAX_DIGITS = 9  # of a count; more is no count, and int() refuses thousands of digits
_MAX_QUOTED = 80  # characters; a file of another kind may be one line


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yields (number from 1, text without white space around it) of every line.

    A byte order mark, which editors on Windows write, is no part of the first.

    Raises:
        ValueError: when the file is no UTF-8 text, with its name and the line before.
    """
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, after line {number}: no UTF-8 text ({error}).") from error


def parse_count(text: str) -> int | None:
    """The number that a line announces, or None when it is no count."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else None


def quoted(text: str) -> str:
    """A line for an error message, cut where it is long."""
    return repr(text) if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]!r}..."
