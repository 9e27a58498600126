"""Reads lines and counts of annotation and detection files that may be damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from face_d2.utils.known_mistake import known_mistake

__all__ = ["numbered_lines", "parse_count", "quoted"]

_MAX_DIGITS = 9  # of a count; more digits are an error, and int() refuses thousands of them
_MAX_QUOTED = 80  # characters; a file of another kind may have very long lines


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yields (number starting at 1, stripped text) of every line.

    A byte order mark, which editors on Windows write, is skipped.

    Raises:
        ValueError: the file is not UTF-8 text; the message names the file and the line before.
    """
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.strip()
    except UnicodeDecodeError as error:
        reason = known_mistake(path) or error
        raise ValueError(f"{path}, after line {number}: not UTF-8 text ({reason}).") from error


def parse_count(text: str) -> int | None:
    """The count in a line, or None if the line is not a count."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else None


def quoted(text: str) -> str:
    """A line for an error message, shortened if it is long."""
    return repr(text) if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]!r}..."
