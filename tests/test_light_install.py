"""The base installation, without PyTorch and Detectron2, and what it says where they are needed."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("face_d2", "df2s2_d2", "lffd_d2")
#: Import names of what the base installation does not have.
HIDDEN = {
    *("torch", "torchvision", "detectron2", "fvcore", "pycocotools", "faster_coco_eval"),
    *("iopath", "omegaconf", "hydra", "yacs", "cloudpickle", "tensorboard", "termcolor"),
    *("matplotlib", "onnx", "plotly", "safetensors", "timm", "openvino", "av", "pillow_heif"),
}
#: Modules that say what is missing, by being imported first.
GUARDS = {"face_d2.needs_detectron2", "face_d2.register"}
MODEL = ("--config-file", "lffd/lffd_25L8S.yaml", "--weights", "a.pth")
CURE = "pip install 'face-d2[train]'"

# Python runs sitecustomize when it starts, in the processes that a command starts, too.
SITECUSTOMIZE = f"""
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, path=None, target=None: (
    None if name.partition(".")[0] in {HIDDEN!r} else find_spec(name, path, target)
)
"""


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes in which the packages of :data:`HIDDEN` cannot be imported."""
    folder = tmp_path_factory.mktemp("hidden")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return {**os.environ, "PYTHONPATH": str(folder)}


def run(code: str, environment: dict[str, str], cwd: Path) -> str:
    """What a program printed that must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def photos(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the example photographs as a WIDER FACE set, each with one face."""
    folder = tmp_path_factory.mktemp("photos")
    event = folder / "images" / "0--Photos"
    event.mkdir(parents=True)
    for name in ("grace_hopper.jpg", "astronaut.jpg"):
        (event / name).symlink_to(repo / "examples" / "photos" / name)
    (folder / "labels.txt").write_text(
        "0--Photos/grace_hopper.jpg\n1\n205 75 160 220 0 0 0 0 0 0\n"
        "0--Photos/astronaut.jpg\n1\n170 70 110 160 0 0 0 0 0 0\n"
    )
    return folder


def test_the_import_is_blocked(hidden: dict[str, str], tmp_path: Path) -> None:
    code = "try: import torch\nexcept ModuleNotFoundError as error: print(error)"
    assert run(code, hidden, tmp_path) == "No module named 'torch'\n"


def test_faces_are_found_in_python(hidden: dict[str, str], repo: Path, tmp_path: Path) -> None:
    code = (
        "import face_d2\n"
        "for name in face_d2.pretrained.PRETRAINED:\n"
        "    detector = face_d2.FaceDetector.from_pretrained(name, score_threshold=0.5)\n"
        f"    print(len(detector.detect({str(repo / 'examples/photos/nasa_group.jpg')!r}).boxes))\n"
    )
    counts = run(f"import face_d2.pretrained\n{code}", hidden, tmp_path).split()
    assert len(counts) == 2
    assert all(int(count) >= 5 for count in counts)


def test_faces_are_found_by_the_command(hidden: dict[str, str], repo: Path, tmp_path: Path) -> None:
    words = ["predict", str(repo / "examples" / "photos"), "--draw", "--blur", "--output", "found"]
    run(f"from face_d2.cli.main import main\nassert main({words}) == 0", hidden, tmp_path)
    found = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert len(json.dumps(found)) > 1000
    assert len(list((tmp_path / "found" / "drawn").iterdir())) == 3


def test_detections_are_scored(hidden: dict[str, str], photos: Path, tmp_path: Path) -> None:
    """The WIDER FACE protocol from the command that finds the faces, and FDDB's."""
    words = ["predict", str(photos / "images"), "--format", "txt", "--output", "found"]
    wider = ["evaluate", "widerface", "found/txt", str(photos / "labels.txt")]
    code = (
        f"from face_d2.cli.main import main\nassert main({words}) == 0\nassert main({wider}) == 0"
    )
    assert "hard" in run(code, hidden, tmp_path).lower()

    folds = tmp_path / "folds"
    folds.mkdir()
    for fold in range(1, 11):
        text = f"2002/img_{fold}\n1\n40 30 1.5 100 90 1\n"
        (folds / f"FDDB-fold-{fold:02d}-ellipseList.txt").write_text(text)
    (tmp_path / "fddb.txt").write_text(
        "".join(f"2002/img_{fold}\n1\n60 50 80 80 0.9\n" for fold in range(1, 11))
    )
    fddb = ["evaluate", "fddb", "fddb.txt", str(folds)]
    code = f"from face_d2.cli.main import main\nassert main({fddb}) == 0"
    assert "10 faces" in run(code, hidden, tmp_path)


def test_detectors_are_compared(hidden: dict[str, str], photos: Path, tmp_path: Path) -> None:
    data = f"wider:{photos / 'labels.txt'}:{photos / 'images'}"
    words = ["compare", "--detector", "lffd-20l5s", "--detector", "df2s2-lite0", "--data", data]
    words += ["--output", "compared", "--bootstrap", "10", "--timing-images", "1"]
    printed = run(f"from face_d2.cli.main import main\nassert main({words}) == 0", hidden, tmp_path)
    assert printed.rstrip().endswith("results.md")  # the page needs plotly
    results = json.loads((tmp_path / "compared" / "results.json").read_text())
    assert set(results["detectors"]) == {"lffd-20l5s", "df2s2-lite0"}
    assert not (tmp_path / "compared" / "index.html").exists()


def test_data_sets_are_checked(hidden: dict[str, str], photos: Path, tmp_path: Path) -> None:
    words = ["check-dataset", "--images", str(photos / "images")]
    words += ["--annotations", str(photos / "labels.txt")]
    code = f"from face_d2.cli.main import main\nassert main({words}) == 0"
    assert "2 images, 2 faces" in run(code, hidden, tmp_path)


def guarded_modules(repo: Path) -> list[tuple[str, bool]]:
    """Modules that import torch or Detectron2 at once, and whether a guard is imported before."""
    found = []
    for package in PACKAGES:
        for path in sorted((repo / package).rglob("*.py")):
            name = ".".join(path.relative_to(repo).with_suffix("").parts).removesuffix(".__init__")
            imports = imports_of(path)
            heavy = [i for i, word in enumerate(imports) if word.partition(".")[0] in HEAVY]
            if heavy:
                before = set(imports[: heavy[0]])
                for parent in path.relative_to(repo).parents:
                    init = repo / parent / "__init__.py"
                    before |= set(imports_of(init)) if init.is_file() else set()
                found.append((name, bool(before & GUARDS)))
    return found


HEAVY = {"torch", "torchvision", "detectron2", "fvcore", "pycocotools"}


def imports_of(path: Path) -> list[str]:
    """The modules that a file imports when it is imported, in order."""
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names


def test_what_needs_torch_asks_for_it_before_it_imports_it(repo: Path) -> None:
    modules = guarded_modules(repo)
    assert len(modules) > 50
    assert [name for name, guarded in modules if not guarded] == []


def test_what_needs_torch_says_how_to_install_it(
    hidden: dict[str, str], repo: Path, tmp_path: Path
) -> None:
    names = [name for name, _ in guarded_modules(repo) if not name.startswith("face_d2.export")]
    code = (
        "import importlib\n"
        f"for name in {names}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError as error: print(name, error)\n"
        "    else: print(name)\n"
    )
    lines = run(code, hidden, tmp_path).splitlines()
    assert len(lines) == len(names)
    assert [line for line in lines if CURE not in line] == []


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["train", "--config-file", "lffd/lffd_25L8S.yaml"], "train"),
        (["convert-lffd", "a.params", "--output", "b.pth"], "train"),
        (["receptive-fields", "--config-file", "lffd/lffd_25L8S.yaml"], "train"),
        (["model-zoo"], "train"),
        (["ablate"], "train"),
        (["benchmark", "--config-file", "lffd/lffd_25L8S.yaml"], "train"),
        (["evaluate", "coverage", "--config-file", "lffd/lffd_25L8S.yaml"], "train"),
        (["export", *MODEL, "--output", "a.onnx"], "onnx"),
        (["predict", ".", *MODEL], "train"),
        (["evaluate", "fddb", "a.txt", "folds", "--plots", "plots"], "plots"),
    ],
)
def test_a_command_says_in_one_line_what_to_install(
    words: list[str], extra: str, hidden: dict[str, str], tmp_path: Path
) -> None:
    for name in ("picture.jpg", "a.pth", "a.params"):
        (tmp_path / name).write_bytes(b"")
    code = f"import sys\nfrom face_d2.cli.main import main\nsys.exit(main({words}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=hidden, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "input" not in line)
    assert line.startswith("error: ")
    assert line.endswith(f"pip install 'face-d2[{extra}]'")


def test_the_base_asks_for_nothing_of_detectron2() -> None:
    lines = importlib.metadata.requires("face-d2") or []
    base = {line.split(">")[0].lower() for line in lines if "extra ==" not in line}
    assert base == {
        *("numpy", "opencv-python", "scipy", "pillow", "onnxruntime", "portalocker", "tqdm"),
        *("pyyaml", "tabulate"),
    }
    train = {line.split(">")[0].split(";")[0] for line in lines if 'extra == "train"' in line}
    assert {"torch", "torchvision", "fvcore", "pycocotools"} <= train
