"""``python -m face_d2.run`` over a script that knows nothing of this project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from face_d2 import run

SCRIPT = """import sys
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
import neighbor
assert __name__ == "__main__"
assert "widerface_val" in DatasetCatalog.list()
print(get_cfg().MODEL.DF2S2.SEG_ENABLED, neighbor.NAME, sys.argv[1:])
"""


def test_a_script_finds_data_sets_keys_and_its_neighbors(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "neighbor.py").write_text("NAME = 'beside it'\n")
    words = [sys.executable, "-W", "ignore", "-m", "face_d2.run"]
    done = subprocess.run(
        [*words, tmp_path / "script.py", "--flag", "x"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True beside it ['--flag', 'x']\n"


@pytest.mark.parametrize(("argv", "code"), [([], 2), (["--help"], 0)])
def test_usage(argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main(argv)
    assert stop.value.code == code
    assert run.USAGE in capsys.readouterr().err


def test_a_missing_script_is_named() -> None:
    with pytest.raises(SystemExit, match=r"no such script: nowhere\.py"):
        run.main(["nowhere.py"])
