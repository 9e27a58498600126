"""The lazy configs describe the runs of the YAML files, and Detectron2's own script runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import DefaultTrainer, SimpleTrainer
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import LRMultiplier
from torch import nn

from face_d2 import compat
from face_d2.config import get_cfg, get_config_file
from face_d2.data.mapper import FaceDatasetMapper, build_train_mapper

YAML_OF = {
    "lazy/df2s2_R50_FFP.py": "df2s2/df2s2_R50_FFP.yaml",
    "lazy/lffd_25L8S.py": "lffd/lffd_25L8S.yaml",
}
# Changes that let a network start from random weights and train on tiny pictures in seconds.
SMALL = {
    "lazy/df2s2_R50_FFP.py": [
        "dataloader.train.mapper.augmentations.0.size=96",
        "dataloader.test.mapper.augmentations.0.short_edge_length=96",
        "model.backbone.bottom_up.freeze_at=0",
        "model.backbone.bottom_up.stem.norm=BN",
        "model.backbone.bottom_up.stages.norm=BN",
        "model.backbone.init_gain=0.1",
    ],
    "lazy/lffd_25L8S.py": ["dataloader.train.mapper.size=96"],
}
RUN = [
    "dataloader.train.total_batch_size=2",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "train.device=cpu",
    "train.init_checkpoint=",
    "train.max_iter=5",
    "train.eval_period=5",
    "train.checkpointer.period=5",
]


def load(name: str, *overrides: str) -> Any:
    return LazyConfig.apply_overrides(LazyConfig.load(get_config_file(name)), list(overrides))


def yaml_cfg(name: str) -> Any:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(YAML_OF[name]))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def settings(part: Any) -> dict[str, Any]:
    """Plain values that an object and the objects in it were built with, by dotted name."""
    found: dict[str, Any] = {}
    for key, value in vars(part).items():
        if key.startswith("_") or key == "training" or isinstance(value, torch.Tensor):
            continue
        if isinstance(value, (str, int, float, type(None))):
            found[key] = value
        elif isinstance(value, (list, tuple)) or type(value).__name__ == "ListConfig":
            found[key] = str([str(item) for item in value if "object at" not in str(item)])
        elif type(value).__module__.split(".")[0] in ("face_d2", "df2s2_d2", "lffd_d2"):
            found |= {f"{key}.{k}": v for k, v in settings(value).items()}
    return found


@pytest.mark.parametrize("name", YAML_OF)
def test_model_is_that_of_the_yaml_file(name: str) -> None:
    lazy, reference = instantiate(load(name).model), build_model(yaml_cfg(name))
    assert str(lazy) == str(reference)
    a, b = lazy.state_dict(), reference.state_dict()
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
    trained = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (lazy, reference)]
    assert trained[0] == trained[1]
    assert torch.equal(lazy.pixel_mean, reference.pixel_mean)
    assert torch.equal(lazy.pixel_std, reference.pixel_std)
    assert settings(lazy) == settings(reference)
    assert len(settings(lazy)) > 10
    if "df2s2" in name:
        for shapes in zip(lazy._shapes(), reference._shapes()):
            assert torch.equal(*shapes)


@pytest.mark.parametrize("name", YAML_OF)
def test_schedule_is_that_of_the_yaml_file(name: str) -> None:
    cfg, yaml = load(name), yaml_cfg(name)
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    reference = DefaultTrainer.build_optimizer(yaml, model)
    scheduler = LRMultiplier(optimizer, instantiate(cfg.lr_multiplier), cfg.train.max_iter)
    reference_scheduler = DefaultTrainer.build_lr_scheduler(yaml, reference)
    assert cfg.train.max_iter == yaml.SOLVER.MAX_ITER
    assert cfg.train.checkpointer.period == yaml.SOLVER.CHECKPOINT_PERIOD
    assert cfg.train.eval_period == yaml.TEST.EVAL_PERIOD
    assert cfg.train.init_checkpoint == yaml.MODEL.WEIGHTS
    assert cfg.dataloader.train.total_batch_size == yaml.SOLVER.IMS_PER_BATCH
    for iteration in (0, 10, 999, 5000, *yaml.SOLVER.STEPS, yaml.SOLVER.MAX_ITER - 1):
        for s in (scheduler, reference_scheduler):
            s.last_epoch = iteration - 1
            s.step()
        rates = [[group["lr"] for group in o.param_groups] for o in (optimizer, reference)]
        assert rates[0][0] == pytest.approx(rates[1][0]), iteration
    for o in (optimizer, reference):
        assert {g["momentum"] for g in o.param_groups} == {0.9}
    decays, expected = (decay_of(model, o) for o in (optimizer, reference))
    # Detectron2 0.5 takes WEIGHT_DECAY_BIAS for biases of norms too, its lazy configs do not.
    del decays["1.bias"], expected["1.bias"]
    assert decays == expected


def decay_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}


@pytest.mark.parametrize("name", YAML_OF)
def test_mappers_are_those_of_the_yaml_file(name: str) -> None:
    cfg, yaml = load(name), yaml_cfg(name)
    for part, reference in (
        (cfg.dataloader.train.mapper, build_train_mapper(yaml)),
        (cfg.dataloader.test.mapper, FaceDatasetMapper(yaml, False)),
    ):
        lazy = instantiate(part)
        assert type(lazy) is type(reference)
        assert settings(lazy) == settings(reference)
        if isinstance(lazy, FaceDatasetMapper):
            assert _augmentations(lazy) == _augmentations(reference)


def _augmentations(mapper: Any) -> list[str]:
    """In words; the YAML file caps the long side at 100,000 pixels, the lazy config not at all."""
    return [
        str(vars(augmentation)).replace("9223372036854775807", "100000")
        for augmentation in mapper.augmentations.augs
    ]


@pytest.mark.parametrize("name", YAML_OF)
def test_trains_and_evaluates(name: str, wider_root: Path, tmp_path: Path) -> None:
    """What Detectron2's script does with a lazy config, step by step."""
    cfg = load(name, *RUN, *SMALL[name], f"train.output_dir={tmp_path}")
    cfg.dataloader.train.dataset.names, cfg.dataloader.test.dataset.names = "tiny_train", "tiny_val"
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    trainer = SimpleTrainer(model, instantiate(cfg.dataloader.train), instantiate(cfg.optimizer))
    trainer.train(0, 2)
    evaluator = instantiate(cfg.dataloader.evaluator)
    results = inference_on_dataset(model, instantiate(cfg.dataloader.test), evaluator)
    assert {"AP_easy", "AP_medium", "AP_hard"} <= set(results["widerface"])
    assert "AP50" in results["bbox"]
    report = (tmp_path / "inference" / "tiny_val" / "widerface.json").read_text()
    assert f'"NMS": "iou {cfg.model.test_nms_thresh}"' in report


@pytest.mark.parametrize("name", YAML_OF)
def test_the_stock_script_runs_it(
    name: str, stock_tools: Path, wider_root: Path, tmp_path: Path
) -> None:
    """Unmodified: as it is where Detectron2 needs no mending, else through face_d2.run."""
    mended = not compat.has_compiled_ops()
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", *(["-m", "face_d2.run"] if mended else [])),
            *(stock_tools / "lazyconfig_train_net.py", "--num-gpus", "0"),
            *("--config-file", get_config_file(name), *RUN, *SMALL[name]),
            f"train.output_dir={tmp_path}",
        ],
        env={**os.environ, "DETECTRON2_DATASETS": str(wider_root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "model_final.pth").is_file()
    assert "copypaste: AP_easy,AP_medium,AP_hard" in done.stdout


@pytest.mark.parametrize("name", YAML_OF)
def test_a_network_for_rgb_is_trained_and_tested_with_rgb(name: str) -> None:
    cfg = load(name, "model.input_format=RGB")
    assert cfg.dataloader.train.mapper.image_format == "RGB"
    assert cfg.dataloader.test.mapper.image_format == "RGB"
