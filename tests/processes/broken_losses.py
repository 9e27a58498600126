"""What the processes of tests/face_d2/engine/test_finite.py run; spawned ones import it by name."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from detectron2.utils import comm

from face_d2 import train_net
from face_d2.data.register import register_wider_face
from face_d2.engine.trainer import FaceTrainer

BROKEN = 2  # the iteration


def train(args: argparse.Namespace) -> None:
    """Trains with a picture of NaN in the batch of the processes ``args.broken``.

    Saves ``{rank}.pt`` in ``args.folder``: what the training raised, the files of the batch and the
    weights after it, without the statistics of BatchNorm, which are a process's own.
    """
    for split in ("train", "val"):
        register_wider_face(
            f"small_{split}",
            args.small_set / f"WIDER_{split}" / "images",
            args.small_set / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt",
        )
    cfg = train_net.load_cfg(args)
    train_net.default_setup(cfg, args)
    trainer = FaceTrainer(cfg)
    rank = comm.get_rank()

    def break_batch(module: torch.nn.Module, inputs: tuple[list[dict[str, torch.Tensor]]]) -> None:
        if trainer.iter == BROKEN and rank in args.broken:
            inputs[0][0]["image"] = inputs[0][0]["image"] * float("nan")

    trainer.model.register_forward_pre_hook(break_batch)
    said = ""
    try:
        trainer.train()
    except FloatingPointError as error:
        said = str(error)
    torch.save(
        {
            "said": said,
            "iteration": trainer.iter,
            "files": [item["file_name"] for item in trainer._loader.latest],
            "weights": dict(trainer._bare_model.named_parameters()),
        },
        Path(args.folder) / f"{rank}.pt",
    )
