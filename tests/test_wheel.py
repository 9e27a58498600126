"""The wheel and the archive hold all that is needed, and work away from the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from helpers.tiny_sets import write_wider_set

PACKAGES = ("df2s2_d2", "lffd_d2", "face_d2")
COMMANDS = (
    "face-d2-train",
    "face-d2-evaluate",
    "face-d2-predict",
    "face-d2-export",
    "face-d2-benchmark",
    "face-d2-compare",
)

# Runs in the new environment. Nothing may come from the checkout.
SMOKE = """
import sys
from importlib.metadata import entry_points, requires, version
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
for entry in entry_points(group="console_scripts"):
    if entry.name.startswith("face-d2-"):
        assert callable(entry.load()), entry.name
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
    """The files that an installation needs: modules, configs, shipped detectors, the page."""
    files = {
        file.relative_to(repo).as_posix()
        for name in PACKAGES
        for pattern in ("*.py", "py.typed")
        for file in (repo / name).rglob(pattern)
    }
    for pattern in ("*.yaml", "*.py"):
        for file in (repo / "configs").rglob(pattern):
            files.add(f"face_d2/{file.relative_to(repo).as_posix()}")
    weights = repo / "face_d2" / "weights"
    files |= {
        file.relative_to(repo).as_posix()
        for kind in ("onnx", "safetensors", "md")
        for file in weights.glob(f"*.{kind}")
    }
    page = repo / "face_d2" / "analysis" / "compare"
    files |= {(page / name).relative_to(repo).as_posix() for name in ("page.html", "page.js")}
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
def archive(copy: Path) -> Path:
    """The source archive."""
    pytest.importorskip("wheel", reason="building needs wheel and setuptools")
    run(sys.executable, "setup.py", "-q", "sdist", "-d", "sdist", cwd=copy)
    (file,) = (copy / "sdist").glob("*.tar.gz")
    return file


@pytest.fixture(scope="module")
def wheel(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel made of the archive, with the tools of this environment: no index is asked."""
    folder = tmp_path_factory.mktemp("wheel")
    run(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
        *("--no-index", "-w", folder, archive),
        cwd=folder,
    )
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment that sees this one's packages, but not this project."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    site = run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip()
    # This environment may itself be a virtual one, which --system-site-packages would not show.
    # Its editable installation of this project comes after what is installed in the new one.
    outer = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    Path(site, "outer.pth").write_text("\n".join(outer) + "\n")
    return python


@pytest.fixture(scope="module")
def installed(clean: Path, wheel: Path) -> Path:
    """The same Python, with the wheel installed for it."""
    run(
        *(sys.executable, "-m", "pip", "--python", clean, "install", "-q", "--no-deps"),
        *("--force-reinstall", "--no-index", wheel),
        cwd=wheel.parent,
    )
    return clean


def test_wheel_is_complete(repo: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    assert held == sources(repo)


def test_archive_has_what_belongs_to_it(archive: Path) -> None:
    with tarfile.open(archive) as file:
        members = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= members


def write_empty_wheel(folder: Path, name: str, version: str) -> None:
    """A package with a name, a version and nothing else."""
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as file:
        info = f"{stem}.dist-info"
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        file.writestr(f"{info}/METADATA", head)
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


def test_installing_changes_no_other_package(clean: Path, wheel: Path, tmp_path: Path) -> None:
    """pip is offered a newer version of everything, and takes only what is missing here."""
    from packaging.requirements import Requirement

    asked = {Requirement(line).name for line in metadata_of(wheel)}
    assert {"numpy", "opencv-python"} <= asked
    trained = {Requirement(line).name for line in metadata_of(wheel, extra="train")}
    assert {"torch", "torchvision", "fvcore", "pycocotools"} <= trained - asked
    asked |= trained
    check = subprocess.run(
        [sys.executable, "-m", "pip", "--python", clean, "check"], capture_output=True, text=True
    )
    for line in check.stdout.splitlines():
        if line.split()[0] in asked:  # then pip changes something whoever asks it
            pytest.skip(f"this environment contradicts itself: {line}")
    for name in (*asked, "detectron2", "detectron2-cdo"):
        write_empty_wheel(tmp_path, name, "999.0")
    report = tmp_path / "report.json"
    run(
        *(sys.executable, "-m", "pip", "--python", clean, "install", "-q", "--dry-run"),
        *("--no-index", "--find-links", tmp_path, "--report", report, f"{wheel}[train]"),
        cwd=tmp_path,
    )
    taken = {
        entry["metadata"]["name"].lower() for entry in json.loads(report.read_text())["install"]
    }
    missing = {name.lower() for name in asked if not is_installed(name)}
    assert taken - {"face-d2"} == missing
    assert not missing & {"torch", "torchvision", "numpy"}


def metadata_of(wheel: Path, extra: str = "") -> list[str]:
    """The wheel's requirements: those of the base, or those of an extra alone."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        text = file.read(name).decode()
    lines = re.findall(r"^Requires-Dist: (.+)$", text, re.M)
    if extra:
        return [line for line in lines if f'extra == "{extra}"' in line]
    return [line for line in lines if "extra ==" not in line]


def is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def test_installed_wheel_imports_elsewhere(repo: Path, installed: Path, tmp_path: Path) -> None:
    run(installed, "-W", "ignore", "-c", SMOKE, repo, cwd=tmp_path)
    for command in COMMANDS:
        assert installed.with_name(command).is_file(), command


@pytest.mark.long
def test_installed_wheel_works_elsewhere(installed: Path, tmp_path: Path) -> None:
    """Training, evaluation and prediction by the commands, away from the checkout."""
    python = installed
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
    run(
        *(python.with_name("face-d2-train"), "--config-file", "quick/df2s2_synth.yaml"),
        *("--num-gpus", "0"),
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
