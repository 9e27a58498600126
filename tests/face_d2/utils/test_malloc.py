"""Freed memory goes back to the system every two seconds."""

from __future__ import annotations

import ctypes
import os
import platform

import pytest

from face_d2.utils import malloc as heap


@pytest.fixture(autouse=True)
def fresh() -> None:
    heap._malloc_trim.cache_clear()


def test_trims_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, trims = [100.0], []
    monkeypatch.setattr(heap.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(heap, "_malloc_trim", lambda: lambda pad: trims.append(now[0]))
    trimmer = heap.HeapTrimmer()
    for now[0] in (100.5, 101.9, 102.0, 102.1, 103.9, 107.0, 107.1):
        trimmer.trim()
    assert trims == [102.0, 107.0]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_glibc_gives_memory_back() -> None:
    """64 MB in blocks too small for maps of their own, all freed but the last one."""
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    blocks = [library.malloc(2**15) for _ in range(2**11)]
    for block in blocks:
        ctypes.memset(block, 1, 2**15)
    for block in blocks[:-1]:
        library.free(block)
    before = _resident()
    heap._malloc_trim()(0)
    library.free(blocks[-1])
    assert before - _resident() > 32 * 2**20


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_another_c_library(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: None) -> None:
        raise error

    monkeypatch.setattr(heap.ctypes, "CDLL", fails)
    assert heap._malloc_trim()(0) == 0


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
