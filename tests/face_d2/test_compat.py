"""What Detectron2 0.5 and 0.6 need on current NumPy, Pillow and PyTorch; main needs none of it."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from PIL import Image

from face_d2 import compat


def run(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("module", ["face_d2.register", "df2s2_d2", "lffd_d2"])
def test_one_import_makes_detectron2_usable(module: str) -> None:
    code = f"import {module}; import detectron2.modeling, detectron2.data, detectron2.evaluation"
    result = run(code, "-W", "ignore")
    assert result.returncode == 0, result.stderr


def test_starting_prints_no_warnings_of_other_packages() -> None:
    result = run("import df2s2_d2, lffd_d2, face_d2.engine.trainer")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.fixture(scope="module")
def other_environment(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment that sees this one's packages and this project."""
    folder = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    purelib = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    outer = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    Path(purelib.stdout.strip(), "a_outer.pth").write_text("\n".join([str(repo), *outer]) + "\n")
    return python


def test_after_one_command_detectron2_can_be_imported_first(
    other_environment: Path, tmp_path: Path
) -> None:
    def python(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [other_environment, *words], cwd=tmp_path, capture_output=True, text=True
        )

    sorted_by_isort = (
        "from detectron2.modeling import Backbone, build_model\n"
        "from df2s2_d2 import FFP\n"
        "assert issubclass(FFP, Backbone)\n"
    )
    assert python("-m", "face_d2.startup", "--install").returncode == 2
    done = python("-m", "face_d2.startup")
    assert done.returncode == 0, done.stderr
    file = Path(done.stdout.partition(".pth")[0] + ".pth")
    assert other_environment.parents[1] in file.parents
    done = python("-c", sorted_by_isort)
    assert done.returncode == 0, done.stderr
    # Python starts in silence where this project is gone.
    assert python("-S", "-c", f"import site; exec(open({str(file)!r}).read())").stderr == ""
    assert python("-m", "face_d2.startup", "--remove").returncode == 0
    assert not file.exists()
    # Detectron2 from 0.6 on can be imported without its compiled operators.
    if not compat.has_compiled_ops() and compat.detectron2_version().startswith("0.5"):
        assert "cannot import name '_C'" in python("-c", sorted_by_isort).stderr


@pytest.mark.parametrize(
    ("key", "call"),
    [
        ("MODEL.FFP.OUT_CHANNELS", "df2s2_d2.config.add_df2s2_config(cfg)"),
        ("MODEL.LFFD.VARIANT", "lffd_d2.config.add_lffd_config(cfg)"),
        ("INPUT.MAPPER", "face_d2.config.add_face_config(cfg)"),
    ],
)
def test_a_key_of_this_project_that_was_not_added_names_the_call(key: str, call: str) -> None:
    from detectron2.config import CfgNode
    from detectron2.config import get_cfg as detectron2_get_cfg

    message = re.escape(f"Non-existent config key: {key}. Call {call} first")
    with pytest.raises(AssertionError, match=message):
        detectron2_get_cfg().merge_from_list([key, "x"])
    other = CfgNode()
    section, *_ = names = key.split(".")
    other[section] = CfgNode({names[1]: "x"})
    with pytest.raises(KeyError, match=re.escape(call)):
        detectron2_get_cfg().merge_from_other_cfg(other)


def test_a_key_of_nobody_is_detectron2s_own_error() -> None:
    from detectron2.config import get_cfg as detectron2_get_cfg

    with pytest.raises(AssertionError, match=r"^Non-existent key: MODEL\.NOPE$"):
        detectron2_get_cfg().merge_from_list(["MODEL.NOPE", 1])


def test_the_command_writes_one_line_and_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", {"purelib": str(tmp_path)}.__getitem__)

    def startup(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["startup", *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(compat.__file__.replace("compat.py", "startup.py"), run_name="__main__")
        return ended.value.code

    assert startup("--install") == 2
    assert "usage: python -m face_d2.startup [--remove]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert startup() == 0
    (file,) = tmp_path.iterdir()
    assert capsys.readouterr().out.startswith(f"{file}: ")
    # Python runs the lines of a .pth file that begin with "import".
    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert line.startswith("import ")
    count = len(sys.meta_path)
    try:
        exec(line)
        assert type(sys.meta_path[0]).__name__ == "_Preparer"
    finally:
        del sys.meta_path[: len(sys.meta_path) - count]
    for _ in range(2):
        assert startup("--remove") == 0
        assert list(tmp_path.iterdir()) == []


PACKAGES = ("face_d2", "df2s2_d2", "lffd_d2")
# Warnings of deprecation that this project's own lines cause end the process; others' do not.
OWN_WARNINGS_ARE_ERRORS = f"""
import importlib, warnings
for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", category=kind, module=r"({"|".join(PACKAGES)})(\\.|$)")
"""


def test_importing_any_module_warns_of_nothing(repo: Path) -> None:
    modules = sorted(
        ".".join(path.relative_to(repo).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in (repo / package).rglob("*.py")
    )
    result = run(f"{OWN_WARNINGS_ARE_ERRORS}for m in {modules}: importlib.import_module(m)")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("module", "status"), [("face_d2.x", 1), ("lffd_d2", 1), ("torch.x", 0)])
def test_what_the_filter_catches(module: str, status: int) -> None:
    code = (
        f"exec('import warnings; warnings.warn(str(), FutureWarning)', dict(__name__={module!r}))"
    )
    assert run(OWN_WARNINGS_ARE_ERRORS + code).returncode == status


def test_no_line_of_source_warns(repo: Path) -> None:
    """Invalid escapes and their like, in scripts that are never imported, too."""
    folders = (*PACKAGES, "configs", "datasets", "examples", "tools", "benchmarks", "tests")
    code = f"""
import pathlib, warnings
warnings.simplefilter("error")
for folder in {folders}:
    for path in sorted(pathlib.Path({str(repo)!r}, folder).rglob("*.py")):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_light_import() -> None:
    code = (
        "import sys, face_d2, face_d2.evaluation, face_d2.data.wider_face, face_d2.data.fddb\n"
        "from face_d2.evaluation import widerface_ap, fddb_roc\n"
        "assert not {'torch', 'detectron2'} & set(sys.modules), 'heavy'"
    )
    result = run(code, "-W", "ignore")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["pkg_resources", "some_other_module"])
def test_model_zoo_of_detectron2_without(name: str) -> None:
    """It asks for pkg_resources, gone since setuptools 82; the stand-in is not left behind."""
    code = f"""
import sys
class Hide:
    def find_spec(self, name, *_):
        if name.split(".")[0] == {name!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
assert "pkg_resources" not in sys.modules
import face_d2.register
from detectron2 import model_zoo
if {name!r} == "pkg_resources":
    assert "pkg_resources" not in sys.modules
try:
    print(model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml"))
except RuntimeError as error:  # a wheel of 0.5 has no configs
    assert "not available" in str(error)
"""
    result = run(code, "-W", "ignore")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("detectron2", ["Detectron2 is not installed", "make install"]),
        ("cv2", ["OpenCV", "opencv-python-headless"]),
    ],
)
def test_missing_package_is_one_sentence(missing: str, words: list[str]) -> None:
    """The package is hidden from the import system; the error says how to mend it."""
    code = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == {missing!r}:
            raise ModuleNotFoundError(name) if {missing!r} == 'cv2' else None or ImportError(name)
        return None
import importlib.util
original = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == {missing!r} else original(name, *a)
sys.meta_path.insert(0, Hide())
try:
    import face_d2.register
except ImportError as error:
    print(error)
"""
    result = run(code, "-W", "ignore")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.strip().splitlines()) == 1
    assert all(word in result.stdout for word in words)


def test_group_norm_in_a_head() -> None:
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
    from torch import nn

    head = RetinaNetHead(
        input_shape=[ShapeSpec(channels=64)],
        num_classes=1,
        num_anchors=1,
        conv_dims=[64],
        norm="GN",
    )
    (norm,) = (m for m in head.cls_subnet if isinstance(m, nn.GroupNorm))
    assert norm.num_channels == 64


def test_polygon_masks() -> None:
    square = [np.array([1.0, 1, 6, 1, 6, 5, 1, 5])]
    masks = PolygonMasks([square])
    assert masks.nonempty().tolist() == [True]
    bitmask = BitMasks.from_polygon_masks([square], 8, 8).tensor[0]
    assert bitmask[2, 3]
    assert not bitmask[6, 6]


def test_sem_seg_evaluator(tmp_path: Path) -> None:
    import torch
    from detectron2.evaluation import SemSegEvaluator

    truth = np.array([[0, 0, 1, 1]] * 2, np.uint8)
    Image.fromarray(truth).save(tmp_path / "a.png")
    name = f"semseg_{tmp_path.name}"
    record = {"file_name": str(tmp_path / "a.jpg"), "sem_seg_file_name": str(tmp_path / "a.png")}
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(stuff_classes=["x", "y"], ignore_label=255)
    evaluator = SemSegEvaluator(name, distributed=False, output_dir=str(tmp_path))
    evaluator.reset()
    scores = torch.zeros(2, 2, 4)
    scores[0, :, :1], scores[1, :, 1:] = 1, 1
    evaluator.process([record], [{"sem_seg": scores}])
    # Class x: 2 of 4 pixels right; class y: all 4 right, 2 wrong.
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == pytest.approx(100 * (2 / 4 + 4 / 6) / 2)


def test_stock_coco_evaluator(tmp_path: Path) -> None:
    import torch
    from detectron2.evaluation import COCOEvaluator

    name = f"coco_{tmp_path.name}"
    box = {"bbox": [5, 5, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0}
    record = {"file_name": "a", "height": 40, "width": 40, "image_id": 1, "annotations": [box]}
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(thing_classes=["face"])
    evaluator = COCOEvaluator(name, ("bbox",), False, output_dir=str(tmp_path))
    evaluator.reset()
    found = Instances((40, 40))
    found.pred_boxes = Boxes(torch.tensor([[5.0, 5, 25, 25]]))
    found.scores = torch.tensor([0.9])
    found.pred_classes = torch.tensor([0])
    evaluator.process([record], [{"instances": found}])
    assert evaluator.evaluate()["bbox"]["AP50"] == pytest.approx(100)


@pytest.mark.skipif(compat.has_compiled_ops(), reason="this Detectron2 has its compiled operators")
def test_missing_operator_explains_itself() -> None:
    import torch
    from detectron2.layers import nms_rotated

    with pytest.raises((RuntimeError, AttributeError), match=r"compiled|nms_rotated"):
        nms_rotated(torch.rand(2, 5), torch.rand(2), 0.5)
    from detectron2 import _C

    with pytest.raises(RuntimeError, match="DETECTRON2="):
        _C.box_iou_rotated(torch.rand(1, 5), torch.rand(1, 5))


def test_random_crop_with_padding_transform() -> None:
    """The transform whose default argument left Pillow in version 10."""
    from detectron2.data.transforms import ExtentTransform

    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert ExtentTransform((0, 0, 4, 4), (8, 8)).apply_image(image).shape == (8, 8, 3)


def test_only_compat_knows_versions(repo: Path) -> None:
    words = ("detectron2.__version__", "_LOCAL_PROCESS_GROUP", "Image.LINEAR", "detectron2._C")
    for package in ("face_d2", "df2s2_d2", "lffd_d2", "tools"):
        for path in (repo / package).rglob("*.py"):
            if path.name != "compat.py":
                text = path.read_text(encoding="utf-8")
                assert not [word for word in words if word in text], path
