"""What the processes of both detectors' test_processes.py run; spawned ones import it by name."""

from __future__ import annotations

from face_d2.plugins import import_detectors

import_detectors()  # patches Detectron2 before its first import

# ruff: noqa: E402
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from face_d2.engine.launch import leave_process_groups

#: Faces of four images: many, none, one that is ignored beside one that is not, one.
FACES: tuple[list[list[float]], ...] = (
    [[8.0 * i, 6.0 * i, 8.0 * i + 14, 6.0 * i + 18] for i in range(7)],
    [],
    [[4, 4, 40, 50], [50, 20, 70, 46]],
    [[30, 30, 60, 62]],
)
IGNORED = ([False] * 7, [], [True, False], [False])


def batch() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    items = []
    for rows, ignore in zip(FACES, IGNORED):
        instances = Instances((96, 96))
        instances.gt_boxes = Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))
        instances.gt_classes = torch.zeros(len(rows), dtype=torch.int64)
        instances.gt_ignore = torch.tensor(ignore, dtype=torch.bool)
        image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8, generator=generator)
        items.append({"image": image, "instances": instances})
    return items


def gradients(cfg: CfgNode, items: list[dict[str, Any]], parallel: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = build_model(cfg).train()
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if parallel else model
    with EventStorage():
        sum(wrapped(items).values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def gradients_of_half(rank: int, cfgs: list[CfgNode], folder: str) -> None:
    """Saves, per config, a process's own gradients and those that both processes share."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2
    )
    half = batch()[2 * rank : 2 * rank + 2]
    found = [[gradients(cfg, half, parallel) for parallel in (False, True)] for cfg in cfgs]
    torch.save(found, f"{folder}/{rank}.pt")
    leave_process_groups()
