"""Returns freed memory to the system."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable

__all__ = ["HeapTrimmer"]

#: Seconds between trims. A trim takes about 20 ms, and the next image 20 ms more for page faults.
_SECONDS = 2.0


class HeapTrimmer:
    """Trims the heap of the C library at most every two seconds.

    Images of many sizes leave gaps in glibc's heap, which glibc does not return to the system. A
    process that predicts on the CPU would grow by a third within hours (docs/reliability.md, "Long
    runs"). With another C library, nothing is done.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def trim(self) -> None:
        """Trims the heap if the last trim was long enough ago."""
        if time.monotonic() - self._last >= _SECONDS:
            _malloc_trim()(0)
            self._last = time.monotonic()


@functools.cache
def _malloc_trim() -> Callable[[int], int]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # TypeError: on Windows, None is no library
        return lambda pad: 0
