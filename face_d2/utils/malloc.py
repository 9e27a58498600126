"""Gives memory that was freed back to the system."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable

__all__ = ["HeapTrimmer"]

#: Between two trims; one takes 20 ms, and the next image as long again, which asks for pages anew.
_SECONDS = 2.0


class HeapTrimmer:
    """Trims the C library's heap every two seconds while it is asked to.

    Pictures of many sizes leave gaps in glibc's heap which it keeps: a process that predicts on the
    CPU would grow by a third within hours (docs/reliability.md, "Long runs"). Where the C library
    is another, nothing is done.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def trim(self) -> None:
        """Trims the heap if the last time was long enough ago."""
        if time.monotonic() - self._last >= _SECONDS:
            _malloc_trim()(0)
            self._last = time.monotonic()


@functools.cache
def _malloc_trim() -> Callable[[int], int]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library of no name
        return lambda pad: 0
