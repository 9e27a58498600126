"""Programs that use the public API can be checked by mypy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed (the extra [dev])")


def mypy(repo: Path, file: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    words = ["--strict", "--config-file", "pyproject.toml", "--cache-dir", str(cache), str(file)]
    return subprocess.run(
        [sys.executable, "-m", "mypy", *words], cwd=repo, capture_output=True, text=True
    )


def test_a_program_is_clean_and_a_wrong_one_is_not(repo: Path, tmp_path: Path) -> None:
    program = repo / "tests" / "typing" / "public_api.py"
    done = mypy(repo, program, tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from face_d2 import FaceDetector\n"
        "from face_d2.evaluation import widerface_ap\n"
        "boxes: str = FaceDetector().detect('photo.jpg').boxes\n"
        "widerface_ap('predictions')\n"
    )
    done = mypy(repo, wrong, tmp_path / "cache")
    assert [line.rpartition("[")[2] for line in done.stdout.splitlines()[:2]] == [
        "assignment]",
        "call-arg]",
    ]


@pytest.mark.parametrize("package", ["face_d2", "face_d2.evaluation"])
def test_type_checkers_see_the_names_that_are_imported_late(repo: Path, package: str) -> None:
    """Each name of _LAZY is imported under TYPE_CHECKING, from the same module."""
    tree = ast.parse((repo / package.replace(".", "/") / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    checked = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (lazy,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_LAZY"
    )
    full = {name: m if m.startswith("face_d2") else f"{package}.{m}" for name, m in lazy.items()}
    assert checked == full
