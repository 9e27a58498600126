"""Commands started as modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

from face_d2.cli.main import COMMANDS

MODULES = ("face_d2.cli.main", *(module for module, _ in COMMANDS.values()))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_is_a_command_answers(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert "found in sys.modules" not in done.stderr
