"""The wheel and the archive hold all that is needed, and work away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from references.tiny_sets import write_wider_set

PACKAGES = ("df2s2_d2", "lffd_d2", "face_d2")
COMMANDS = ("face-d2-train", "face-d2-evaluate", "face-d2-predict", "face-d2-export")

# Runs in the new environment. Nothing may come from the checkout.
SMOKE = """
import sys
from importlib.metadata import requires, version
from pathlib import Path
from face_d2 import get_cfg, get_config_file
import df2s2_d2, lffd_d2, face_d2.predictor, face_d2.export
from detectron2.config import LazyConfig, instantiate

checkout = Path(sys.argv[1])
for package in (df2s2_d2, lffd_d2, face_d2):
    assert checkout not in Path(package.__file__).parents, package.__file__
assert version("face-d2") == face_d2.__version__
assert not [r for r in requires("face-d2") if r.startswith("detectron2")]
for name in ("quick/df2s2_synth.yaml", "ablation/suites/fusion.yaml", "lazy/common.py"):
    assert Path(get_config_file(name)).is_file(), name
get_cfg().merge_from_file(get_config_file("df2s2/df2s2_R50_FFP.yaml"))
instantiate(LazyConfig.load(get_config_file("lazy/lffd_25L8S.py")).model)
"""


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def sources(repo: Path) -> set[str]:
    """What an installation must hold: every module, and every config under its place there."""
    files = {
        file.relative_to(repo).as_posix()
        for name in PACKAGES
        for file in (repo / name).rglob("*.py")
    }
    for pattern in ("*.yaml", "*.py"):
        for file in (repo / "configs").rglob(pattern):
            files.add(f"face_d2/{file.relative_to(repo).as_posix()}")
    return files


@pytest.fixture(scope="module")
def copy(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout without its products, so that building leaves nothing in it."""
    target = tmp_path_factory.mktemp("source") / "face-d2"
    names = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", "output", ".*")
    target.mkdir()
    for name in (*PACKAGES, "configs"):
        shutil.copytree(repo / name, target / name, ignore=names)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repo / name, target)
    return target


@pytest.fixture(scope="module")
def wheel(copy: Path) -> Path:
    """The wheel, built with the tools of this environment: no index is asked."""
    pytest.importorskip("wheel", reason="building needs wheel and setuptools")
    run(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
        *("-w", copy / "dist", copy),
        cwd=copy,
    )
    (file,) = (copy / "dist").glob("*.whl")
    return file


def test_wheel_is_complete(repo: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == sources(repo)


def test_archive_builds_the_same(copy: Path, wheel: Path) -> None:
    """The source archive holds what its own setup.py needs, and the packages."""
    run(sys.executable, "setup.py", "-q", "sdist", "-d", "sdist", cwd=copy)
    (file,) = (copy / "sdist").glob("*.tar.gz")
    with tarfile.open(file) as archive:
        members = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= members
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    shipped = {name.removeprefix("face_d2/") if "/configs/" in name else name for name in held}
    assert shipped - members == set()


@pytest.mark.long
def test_installed_wheel_works_elsewhere(repo: Path, wheel: Path, tmp_path: Path) -> None:
    """Installed beside this environment's torch and Detectron2, which stay what they are."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    # The packages of this environment, which may itself be a virtual one, for the new one to see;
    # its editable installation of this project comes after what is installed here.
    site = run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip()
    outer = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    Path(site, "outer.pth").write_text("\n".join(outer) + "\n")
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"),
        *("--force-reinstall", "--no-index", wheel),
        cwd=tmp_path,
    )
    run(python, "-W", "ignore", "-c", SMOKE, repo, cwd=tmp_path)
    for command in COMMANDS:
        assert "usage" in run(python.with_name(command), "--help", cwd=tmp_path), command

    datasets = tmp_path / "datasets"
    for split in ("train", "val"):
        write_wider_set(datasets / "widerface", split, 2)
    settings = {
        "DATASETS.TRAIN": ("widerface_train",),
        "DATASETS.TEST": ("widerface_val",),
        "SOLVER.MAX_ITER": 2,
        "SOLVER.IMS_PER_BATCH": 2,
        "DATALOADER.NUM_WORKERS": 0,
        "OUTPUT_DIR": "run",
    }
    config = run(
        python,
        *("-c", "import face_d2; print(face_d2.get_config_file('quick/df2s2_synth.yaml'))"),
        cwd=tmp_path,
    )
    run(
        *(python.with_name("face-d2-train"), "--config-file", config.strip(), "--num-gpus", "0"),
        *(word for pair in settings.items() for word in pair),
        cwd=tmp_path,
        DETECTRON2_DATASETS=str(datasets),
    )
    predictions = tmp_path / "run" / "inference" / "widerface_val" / "predictions"
    text = datasets / "widerface" / "wider_face_split" / "wider_face_val_bbx_gt.txt"
    scored = run(
        *(python.with_name("face-d2-evaluate"), "widerface", predictions, text), cwd=tmp_path
    )
    assert "hard" in scored.lower()
    run(
        *(python.with_name("face-d2-predict"), datasets / "widerface" / "WIDER_val" / "images"),
        *("--config-file", "quick/df2s2_synth.yaml", "--weights", "run/model_final.pth"),
        *("--device", "cpu", "--output", "found"),
        cwd=tmp_path,
    )
    assert (tmp_path / "found" / "detections.json").is_file()
