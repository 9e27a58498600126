"""Running a command's ``main`` as a shell sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def status_of(main: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """The exit status of a command, whether its work or its parser ended it."""
    try:
        return main(words)
    except SystemExit as stopped:
        return int(stopped.code or 0)
