from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from face_d2.synthetic.dataset import generate


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny set packed as the official archives are."""
    folder = tmp_path_factory.mktemp("zips")
    root = generate(folder / "set", train_images=2, val_images=2, progress=False)
    for name in ("WIDER_train", "WIDER_val", "wider_face_split"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as file:
            for path in sorted((root / name).rglob("*")):
                file.write(path, path.relative_to(root))
    return folder


def prepare(repo: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, repo / "datasets" / "prepare_widerface.py", *words]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def test_unpacks_checks_and_writes_coco(repo: Path, archives: Path, tmp_path: Path) -> None:
    run = prepare(repo, archives, "--root", tmp_path, "--coco")
    # A set of two images is not the official one: unpacked, used, and said to be incomplete.
    assert run.returncode == 1
    assert "2 images, expected 12,880" in run.stderr
    coco = json.loads(
        (tmp_path / "widerface/wider_face_split/wider_face_val_coco.json").read_text()
    )
    assert len(coco["images"]) == 2
    assert all(
        (tmp_path / "widerface/WIDER_val/images" / i["file_name"]).is_file() for i in coco["images"]
    )
    from pycocotools.coco import COCO

    COCO(str(tmp_path / "widerface/wider_face_split/wider_face_val_coco.json"))
    again = prepare(repo, archives, "--root", tmp_path)
    assert again.stdout.count("exists already") == 3


def test_damaged_and_absent_archives(repo: Path, archives: Path, tmp_path: Path) -> None:
    run = prepare(repo, tmp_path, "--root", tmp_path / "data")
    assert run.returncode == 1
    assert "holds none of WIDER_train.zip" in run.stderr
    (tmp_path / "WIDER_val.zip").write_bytes((archives / "WIDER_val.zip").read_bytes()[:500])
    run = prepare(repo, tmp_path, "--root", tmp_path / "data")
    assert run.returncode == 1
    assert "WIDER_val.zip: damaged" in run.stderr
    assert "Traceback" not in run.stderr
