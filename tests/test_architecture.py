"""Which package may import which: the contracts of pyproject.toml hold and notice a breach."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest.importorskip("importlinter", reason="import-linter is not installed (the extra [dev])")

PACKAGES = ("face_d2", "df2s2_d2", "lffd_d2")
#: A file, an import that it must not have, and how the report names both.
BREACHES = [
    ("face_d2/data/mapper.py", "face_d2.engine.trainer", "face_d2.data.mapper"),
    ("face_d2/data/new_room/__init__.py", "face_d2.cli", "face_d2.data.new_room"),
    ("face_d2/modeling/base.py", "lffd_d2", "face_d2.modeling.base"),
    ("lffd_d2/head.py", "df2s2_d2.head", "lffd_d2.head"),
    ("face_d2/ops/nms.py", "face_d2.config", "face_d2.ops.nms"),
    ("face_d2/utils/files.py", "face_d2.ops.resize", "face_d2.utils.files"),
    ("face_d2/predictor/results.py", "torch", "face_d2.predictor.results"),
]


def contracts(repo: Path) -> list[dict[str, Any]]:
    with (repo / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["importlinter"]["contracts"]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copy(repo: Path, tmp_path: Path) -> Path:
    for name in PACKAGES:
        shutil.copytree(repo / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(repo / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr


def test_planted_breaches_are_found(copy: Path) -> None:
    for file, target, _ in BREACHES:
        path = copy / file
        path.parent.mkdir(exist_ok=True)
        text = path.read_text() if path.exists() else ""
        path.write_text(f"{text}\nimport {target}\n")
    done = lint_imports(copy)
    assert done.returncode == 1
    names = [contract["name"] for contract in contracts(copy)]
    kept = [name for name in names if f"{name} BROKEN" not in done.stdout]
    assert not kept, done.stdout
    missed = [row for row in BREACHES if f"{row[2]} -> {row[1]} (" not in done.stdout]
    assert not missed, done.stdout


def test_a_package_without_a_layer_is_found(copy: Path) -> None:
    (copy / "face_d2" / "new_room").mkdir()
    (copy / "face_d2" / "new_room" / "__init__.py").touch()
    done = lint_imports(copy)
    assert done.returncode == 1
    assert "new_room" in done.stdout


def test_what_needs_no_torch_imports_none(repo: Path) -> None:
    """The contract leaves out imports inside functions; here every module is imported for real."""
    (sources,) = (c["source_modules"] for c in contracts(repo) if "without torch" in c["name"])
    code = (
        "import importlib, pkgutil, sys\n"
        f"for name in {sources}:\n"
        "    module = importlib.import_module(name)\n"
        "    for found in pkgutil.walk_packages(getattr(module, '__path__', []), name + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "    loaded = {'torch', 'torchvision', 'detectron2'} & set(sys.modules)\n"
        "    assert not loaded, (name, loaded)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=repo, check=True)
