"""The processor's name, on machines with and without /proc/cpuinfo."""

from __future__ import annotations

import os
import resource
import types
from pathlib import Path
from typing import Any

import pytest

from face_d2.utils.processor import peak_memory, processor_name, usable_cores


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "model name\t: One\nflags\t\t: sse2 avx2\n\nmodel name\t: Two\nflags\t: amx_int8\n",
            "One (AVX2)",
        ),
        ("model name : X\nflags : avx2 avx512f avx512_vnni\n", "X (AVX-512 VNNI)"),
        ("model name : Old\nflags : sse2\n", "Old"),
        ("BogoMIPS : 50\nFeatures : asimd\n", "arm"),
        (None, "arm"),
    ],
)
def test_name(content: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_text(path: Path, **settings: Any) -> str:
        assert str(path) == "/proc/cpuinfo"
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm")
    assert processor_name() == expected


def test_peak_of_memory_in_mib_with_and_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, getrusage gives bytes."""
    assert 10 < peak_memory() < 100_000

    def read_text(path: Path, **settings: Any) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    usage = types.SimpleNamespace(ru_maxrss=300 * 2**20)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    assert peak_memory() == 300


def test_cores_are_counted_where_none_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
