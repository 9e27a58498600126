"""Commands started as modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = (
    "face_d2.cli.benchmark",
    "face_d2.cli.check_dataset",
    "face_d2.cli.evaluate",
    "face_d2.cli.export",
    "face_d2.cli.model_zoo",
    "face_d2.cli.predict",
)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_is_a_command_answers(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert "found in sys.modules" not in done.stderr
