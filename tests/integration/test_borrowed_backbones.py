"""What a Detectron2 project may expect of a backbone that it borrows."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_model, build_resnet_backbone
from torch import nn

from df2s2_d2 import add_df2s2_config, build_resnet_ffp_backbone
from face_d2.engine.checkpoint import FaceCheckpointer
from lffd_d2 import build_lffd_backbone

STAGES = ["res2", "res3", "res4", "res5"]
RGB = ShapeSpec(channels=3)


def resnet_cfg(**settings: Any) -> CfgNode:
    """Plain Detectron2's config, without a key of ours, of a slim ResNet-50."""
    cfg = get_cfg()
    resnets = cfg.MODEL.RESNETS
    resnets.OUT_FEATURES = STAGES
    resnets.STEM_OUT_CHANNELS, resnets.RES2_OUT_CHANNELS, resnets.WIDTH_PER_GROUP = 8, 16, 4
    resnets.update(settings)
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def ffp_cfg(**settings: Any) -> CfgNode:
    """RetinaNet over the feature fusion pyramid, with changes to ``MODEL.FFP``."""
    cfg = resnet_cfg()
    add_df2s2_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_ffp_backbone"
    cfg.MODEL.RETINANET.IN_FEATURES = ["ffp3", "ffp4", "ffp5", "ffp6", "ffp7"]
    cfg.MODEL.FFP.OUT_CHANNELS = 32
    cfg.MODEL.FFP.update(settings)
    return cfg


@pytest.mark.parametrize("build", [build_resnet_ffp_backbone, build_lffd_backbone])
def test_a_config_without_our_keys_is_enough(build: Callable[..., nn.Module]) -> None:
    """One import and ``MODEL.BACKBONE.NAME``; what is announced is what comes."""
    backbone = build(resnet_cfg(), RGB).eval()
    shapes, maps = backbone.output_shape(), backbone(torch.rand(1, 3, 512, 256))
    assert list(shapes) == list(maps)
    for name, shape in shapes.items():
        assert maps[name].shape[1] == shape.channels
        for side, length in zip(maps[name].shape[2:], (512, 256)):
            # FFP pads its layers, LFFD does not and loses the last cell.
            assert length // shape.stride - side in (0, 1), name


def test_padding_is_what_is_asked_for() -> None:
    images = [{"image": torch.zeros(3, 33, 70)}]
    free, padded = (build_model(ffp_cfg(SIZE_DIVISIBILITY=size)) for size in (0, 32))
    assert free.preprocess_image(images).tensor.shape[2:] == (33, 70)
    assert padded.preprocess_image(images).tensor.shape[2:] == (64, 96)
    assert free.backbone.padding_constraints == {}
    assert padded.backbone.padding_constraints == {"size_divisibility": 32}


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 5])
def test_freeze_at(freeze_at: int) -> None:
    cfg = ffp_cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    backbone = build_model(cfg).backbone
    parts = [backbone.bottom_up.stem, *(getattr(backbone.bottom_up, name) for name in STAGES)]
    trained = [any(p.requires_grad for p in part.parameters()) for part in parts]
    assert trained == [False] * freeze_at + [True] * (5 - freeze_at)
    assert all(p.requires_grad for p in backbone.f_blocks.parameters())


@pytest.mark.parametrize(
    ("norm", "kind"), [("FrozenBN", FrozenBatchNorm2d), ("BN", nn.BatchNorm2d)]
)
def test_norm_of_the_resnet(norm: str, kind: type) -> None:
    cfg = resnet_cfg(NORM=norm)
    cfg.MODEL.BACKBONE.FREEZE_AT = 0  # freezing turns BN into FrozenBN
    backbone = build_resnet_ffp_backbone(cfg, RGB)
    norms = [m for m in backbone.modules() if isinstance(m, (FrozenBatchNorm2d, nn.BatchNorm2d))]
    assert len(norms) == 53
    assert all(isinstance(m, kind) for m in norms)


def test_norm_of_the_pyramid() -> None:
    with_norm, without = (build_model(ffp_cfg(NORM=norm)).backbone for norm in ("GN", ""))
    assert all(isinstance(p.norm, nn.GroupNorm) for p in with_norm.projections)
    assert all(p.bias is None for p in with_norm.projections)
    assert all(p.norm is None and p.bias is not None for p in without.projections)


def caffe2_name(name: str) -> str:
    """A parameter's name in the files of MSRA's ResNets, which have no running statistics."""
    branches = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    words = name.split(".")
    if words[0] == "stem":
        stem = "res_conv1" if words[2] == "norm" else "conv1"
    else:
        branch = branches.get(words[2], "branch1")
        stem = f"{words[0]}_{words[1]}_{branch}"
    return stem + {"norm.weight": "_bn_s", "norm.bias": "_bn_b"}.get(".".join(words[-2:]), "_w")


def write_imagenet(path: Path, form: str) -> dict[str, torch.Tensor]:
    """A classifier's weights as Detectron2's model zoo has them; returns what must arrive."""
    torch.manual_seed(1)
    state = build_resnet_backbone(resnet_cfg(), RGB).state_dict()
    for value in state.values():
        value.uniform_(0.1, 1)
    if form == "caffe2":
        state = {k: v for k, v in state.items() if "running" not in k}
        data: dict[str, Any] = {caffe2_name(k): v.numpy() for k, v in state.items()}
        data |= {f"{k}_momentum": v for k, v in data.items()}
    else:  # what Detectron2's convert-torchvision-to-d2.py writes
        arrays = {k: v.numpy() for k, v in state.items()}
        data = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(data))
    return state


@pytest.mark.parametrize("form", ["caffe2", "torchvision"])
@pytest.mark.parametrize("checkpointer", [DetectionCheckpointer, FaceCheckpointer])
@pytest.mark.parametrize("architecture", ["RetinaNet", "DF2S2"])
def test_imagenet_weights_land_in_bottom_up(
    architecture: str,
    checkpointer: type[DetectionCheckpointer],
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = write_imagenet(tmp_path / "R-50.pkl", form)
    cfg = ffp_cfg()
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32]]
    model = build_model(cfg)
    reported: list[Any] = []
    loader = checkpointer(model)
    monkeypatch.setattr(loader, "_log_incompatible_keys", reported.append)
    loader.load(str(tmp_path / "R-50.pkl"))
    loaded = model.backbone.bottom_up.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    (keys,) = reported
    assert keys.unexpected_keys == []
    assert keys.incorrect_shapes == []
    new = {k for k in model.state_dict() if not k.startswith("backbone.bottom_up.")}
    assert set(keys.missing_keys) <= new
    assert {"backbone.f_blocks.0.psi.weight", "backbone.projections.0.weight"} <= set(
        keys.missing_keys
    )
