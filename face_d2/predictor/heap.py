"""Gives memory that was freed back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

__all__ = ["HeapTrimmer"]

#: Images between two trims, which take some 20 ms.
_PERIOD = 50


class HeapTrimmer:
    """Trims the C library's heap after every so many images.

    Pictures of many sizes leave gaps in glibc's heap which it keeps: a process that predicts on the
    CPU would grow by a third within hours (docs/reliability.md, "Long runs"). Where the C library
    is another, nothing is done.
    """

    def __init__(self) -> None:
        self._images = 0

    def count(self, images: int) -> None:
        """Counts images that were searched, and trims the heap when their number is reached."""
        self._images += images
        if self._images >= _PERIOD:
            self._images = 0
            _trim()(0)


@functools.cache
def _trim() -> Callable[[int], int]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library of no name
        return lambda pad: 0
