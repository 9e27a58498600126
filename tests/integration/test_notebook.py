"""The notebook in examples/ runs from its first cell to its last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the extra [onnx] is not installed")


def test_every_cell_runs_in_order(repo: Path, tmp_path: Path) -> None:
    notebook = json.loads((repo / "examples" / "faces.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert len(cells) >= 5
    (tmp_path / "photos").symlink_to(repo / "examples" / "photos")
    (tmp_path / "cells.py").write_text("\n\n".join(cells), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "cells.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    written = tmp_path / "output" / "notebook"
    assert (written / "run" / "model_final.pth").is_file()
    results = json.loads((written / "compare" / "results.json").read_text())
    assert set(results["detectors"]) == {"shipped", "tuned"}


def test_its_pictures_are_of_the_public_domain(repo: Path) -> None:
    """The only picture in its outputs is of the one photograph that it opens."""
    notebook = json.loads((repo / "examples" / "faces.ipynb").read_text(encoding="utf-8"))
    shown = [
        cell
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        if any(kind.startswith("image/") for kind in output.get("data", {}))
    ]
    assert len(shown) == 1
    text = json.dumps(notebook)
    assert text.count("photos/") == 1
    assert "photos/nasa_group.jpg" in text
