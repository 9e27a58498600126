"""Every size of DF2S2 that is shipped builds; those without ImageNet weights start to learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from face_d2.config import get_cfg, get_config_file

CONFIGS = Path(get_config_file("df2s2/df2s2_R50_FFP.yaml")).parent.parent
SHIPPED = sorted(
    f"{path.parent.name}/{path.name}"
    for pattern in (
        "df2s2/*.yaml",
        "baseline/*.yaml",
        "quick/df2s2_*.yaml",
        "quick/retinanet_*.yaml",
    )
    for path in CONFIGS.glob(pattern)
)
#: Millions of parameters of the backbone's ResNet, without its classifier (torchvision's figures).
RESNETS = {50: 23.5, 18: 11.2}


def load(name: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(name))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def millions(module: nn.Module) -> float:
    tensors = [p for p in module.parameters()]
    norms = [b for name, b in module.named_buffers() if name.endswith(("norm.weight", "norm.bias"))]
    return sum(t.numel() for t in [*tensors, *norms]) / 1e6


def batch(side: int) -> list[dict[str, Any]]:
    items = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        faces = Instances((side, side))
        faces.gt_boxes = Boxes(torch.tensor([[20.0, 20, 60, 70], [70.0, 70, 86, 90]]))
        faces.gt_classes = torch.zeros(2, dtype=torch.int64)
        pixels = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
        items.append({"image": pixels, "instances": faces})
    return items


@pytest.mark.parametrize("name", SHIPPED)
def test_builds_and_gives_maps_of_six_levels(name: str) -> None:
    model = build_model(load(name)).eval()
    with torch.no_grad():
        maps = model.forward_maps(torch.zeros(1, 3, 64, 64))
    assert [tuple(m.shape[2:]) for m in maps[::2]] == [(s, s) for s in (16, 8, 4, 2, 1, 1)]
    assert all(torch.isfinite(m).all() for m in maps)


@pytest.mark.parametrize(
    ("name", "depth", "norm"),
    [
        ("df2s2/df2s2_R50_FFP.yaml", 50, "FrozenBN"),
        ("baseline/retinanet_R50_FPN.yaml", 50, "FrozenBN"),
        ("df2s2/df2s2_R50_FFP_scratch.yaml", 50, "SyncBN"),
        ("df2s2/df2s2_R18_FFP_scratch.yaml", 18, "SyncBN"),
    ],
)
def test_sizes_are_what_their_names_say(name: str, depth: int, norm: str) -> None:
    cfg = load(name)
    resnets = cfg.MODEL.RESNETS
    assert depth == resnets.DEPTH
    assert norm == resnets.NORM
    # Frozen norms are right with weights alone, and Detectron2's R-50 with its own pixel values.
    weights = "detectron2://ImageNetPretrained/MSRA/R-50.pkl" if norm == "FrozenBN" else ""
    assert weights == cfg.MODEL.WEIGHTS
    assert millions(build_model(cfg).backbone.bottom_up) == pytest.approx(RESNETS[depth], abs=0.05)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_random_network_starts_to_learn(depth: int) -> None:
    """With the config's learning rate at once; its warm-up is longer."""
    cfg = load(f"df2s2/df2s2_R{depth}_FFP_scratch.yaml")
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    losses = []
    with EventStorage():
        for _ in range(4):
            loss = sum(model(batch(96)).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert all(math.isfinite(loss) for loss in losses)
    assert max(losses) < 20
    assert losses[-1] < losses[0]
