"""Every example under examples/ trains a few steps and evaluates, as Detectron2's user runs it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from detectron2.engine import default_argument_parser
from helpers.tiny_configs import SHORT_RUN, SMALL_ROI

# A slim ResNet-50 that can start from random weights.
RESNET = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.FFP.OUT_CHANNELS": 16,
    "MODEL.FFP.PSI_INIT_GAIN": 0.1,
}
RUN = SHORT_RUN | {"SOLVER.MAX_ITER": 3, "SOLVER.STEPS": (2,)}
SMALL_HEADS = SMALL_ROI | {
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 2,
}
ONE_CLASS = {"MODEL.ROI_HEADS.NUM_CLASSES": 1}
# The smallest images that reach the last layer of LFFD.
ENLARGED = {"INPUT.MIN_SIZE_TRAIN": (130,), "INPUT.MIN_SIZE_TEST": 130}
FACES = {"DATASETS.TRAIN": ("tiny_train",), "DATASETS.TEST": ("tiny_val",)}
COCO = {"DATASETS.TRAIN": ("tiny_coco",), "DATASETS.TEST": ("tiny_coco",)}
PANOPTIC = {"DATASETS.TRAIN": ("tiny_panoptic",), "DATASETS.TEST": ("tiny_panoptic",)}

EXAMPLES = {
    "retinanet_ffp": (RESNET | FACES, {"widerface/AP_hard", "bbox/AP50"}),
    "faster_rcnn_ffp": (RESNET | SMALL_HEADS | FACES, {"widerface/AP_hard", "bbox/AP50"}),
    "mask_rcnn_ffp": (RESNET | SMALL_HEADS | ONE_CLASS | COCO, {"bbox/AP50", "segm/AP50"}),
    "panoptic_fpn_ffp": (
        RESNET | SMALL_HEADS | ONE_CLASS | PANOPTIC,
        {"bbox/AP50", "segm/AP50", "sem_seg/mIoU"},
    ),
    "retinanet_lffd": (ENLARGED | FACES, {"widerface/AP_hard", "bbox/AP50"}),
}


@pytest.fixture(scope="module")
def train_net(repo: Path) -> ModuleType:
    """examples/train_net.py."""
    spec = importlib.util.spec_from_file_location(
        "example_train_net", repo / "examples/train_net.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(repo: Path, name: str, output: Path, settings: dict[str, object]) -> list[str]:
    pairs = [str(word) for pair in settings.items() for word in pair]
    return [
        *("--config-file", str(repo / "examples" / f"{name}.yaml"), "--num-gpus", "0"),
        *("OUTPUT_DIR", str(output), *pairs),
    ]


@pytest.mark.usefixtures("wider_root", "coco_sets")
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_trains_and_evaluates(
    repo: Path, train_net: ModuleType, tmp_path: Path, name: str
) -> None:
    settings, metrics = EXAMPLES[name]
    parse = default_argument_parser().parse_args
    train_net.main(parse(words(repo, name, tmp_path, RUN | settings)))
    settings = settings | {"MODEL.WEIGHTS": tmp_path / "model_final.pth"}
    results = train_net.main(
        parse(["--eval-only", *words(repo, name, tmp_path / "eval", RUN | settings)])
    )
    assert metrics <= {f"{task}/{key}" for task, row in results.items() for key in row}


def test_every_example_is_tested(repo: Path) -> None:
    yaml = {path.stem for path in (repo / "examples").glob("*.yaml")}
    assert yaml == set(EXAMPLES)
    assert {path.stem for path in (repo / "examples").glob("*.py")} == {"train_net", "fcos_ffp"}


def test_fcos(
    repo: Path, wider_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FCOS has no YAML; its lazy config is built and stepped here."""
    pytest.importorskip("detectron2.modeling.meta_arch.fcos", reason="this Detectron2 has no FCOS")
    from detectron2.config import LazyConfig, instantiate
    from detectron2.engine import SimpleTrainer
    from detectron2.evaluation import inference_on_dataset

    cfg = LazyConfig.load(str(repo / "examples" / "fcos_ffp.py"))
    resnet = cfg.model.backbone.bottom_up
    resnet.stem.norm = resnet.stages.norm = "BN"
    resnet.freeze_at = 0
    cfg.model.backbone.init_gain = 0.1
    cfg.train.output_dir = str(tmp_path)
    cfg.dataloader.train.dataset.names = "tiny_train"
    cfg.dataloader.test.dataset.names = "tiny_val"
    cfg.dataloader.train.total_batch_size = 2
    cfg.dataloader.train.num_workers = cfg.dataloader.test.num_workers = 0
    cfg.dataloader.train.mapper.augmentations[0].short_edge_length = [70]
    cfg.dataloader.test.mapper.augmentations[0].short_edge_length = 70
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), instantiate(cfg.optimizer))
    trainer.train(0, 2)
    results = inference_on_dataset(
        model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    )
    assert {"widerface", "bbox"} <= set(results)


def test_the_stock_script_runs_an_example(
    repo: Path, stock_tools: Path, wider_root: Path, tmp_path: Path
) -> None:
    """Detectron2's train_net.py, unmodified, through ``python -m face_d2.run``."""
    settings = RUN | RESNET | {"DATASETS.TEST": ()}
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "face_d2.run", stock_tools / "train_net.py"),
            *words(repo, "retinanet_ffp", tmp_path / "run", settings),
        ],
        env={**os.environ, "DETECTRON2_DATASETS": str(wider_root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "model_final.pth").is_file()
