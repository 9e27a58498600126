"""What the processes of tests/lffd_d2/test_losses.py run; spawned ones import it by name."""

from __future__ import annotations

import lffd_d2  # isort: skip  (mends Detectron2 before its first import)

import torch
from torch import Tensor

from face_d2.engine.launch import leave_process_groups
from lffd_d2.assignment import BranchLabels
from lffd_d2.losses import LFFDLoss


def loss_of_half_a_batch(
    rank: int,
    logits: Tensor,
    offsets: Tensor,
    labels: dict[str, Tensor],
    options: dict,
    folder: str,
) -> None:
    """Saves ``{rank}.pt``: losses and gradients of the rank-th half of the images."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2
    )
    first = rank * len(logits) // 2
    rows = slice(first, first + len(logits) // 2)
    mine = (labels["box_cells"][:, 0] // (len(logits) // 2)) == rank
    half = BranchLabels(
        positive=labels["positive"][rows],
        negative=labels["negative"][rows],
        box_cells=labels["box_cells"][mine] - torch.tensor([first, 0, 0]),
        box_targets=labels["box_targets"][mine],
    )
    logits = logits[rows].clone().requires_grad_()
    offsets = offsets[rows].clone().requires_grad_()
    score, box = LFFDLoss(**options)([logits], [offsets], [half])
    (score.sum() + box.sum()).backward()
    torch.save((score.item(), box.item(), logits.grad, offsets.grad), f"{folder}/{rank}.pt")
    leave_process_groups()
