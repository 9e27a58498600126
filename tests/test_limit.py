"""Smaller processors than this one, for ``make test LIMIT=...``: what a program then sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FEATURES = """
from numpy._core._multiarray_umath import __cpu_features__ as features
print(features["SSE42"], features["AVX2"])
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    processor = Path("/proc/cpuinfo")
    if not processor.exists() or " avx2" not in processor.read_text():
        pytest.skip("needs Linux on an x86-64 processor with AVX2")
    if not shutil.which("cc") or not shutil.which("objdump"):
        pytest.skip("needs a C compiler and objdump")
    built = tmp_path_factory.mktemp("limit") / "limit_processor.so"
    source = repo / "tools" / "qa" / "limit_processor.c"
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, "-o", str(built), str(source), "-ldl"], check=True)
    return built


def seen(library: Path, limit: str, packages: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        **{"LIMIT_PROCESSOR": limit, "LD_PRELOAD": str(library)},
        "LIMITED_PACKAGES": str(packages),
    }
    return subprocess.run(
        [sys.executable, "-c", FEATURES], env=environment, capture_output=True, text=True
    )


def test_a_limit_hides_instructions(library: Path, repo: Path, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    script = str(repo / "tools" / "qa" / "limit_packages.py")
    subprocess.run([sys.executable, script, str(packages), "--packages", "numpy"], check=True)
    assert seen(library, "avx2", packages).stdout.split() == ["True", "True"]
    assert seen(library, "sse42", packages).stdout.split() == ["True", "False"]


def test_an_unknown_limit_ends_the_program(library: Path, tmp_path: Path) -> None:
    run = seen(library, "mmx", tmp_path)
    assert run.returncode == 97
    assert "LIMIT_PROCESSOR=mmx: no such limit" in run.stderr
