"""The processor's name, on machines with and without /proc/cpuinfo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from face_d2.utils.processor import processor_name


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
