"""Trainings that remember every loss."""

from __future__ import annotations

from detectron2.engine import HookBase

from face_d2 import train_net
from face_d2.engine.trainer import FaceTrainer


class _Losses(HookBase):
    def __init__(self) -> None:
        self.values: list[float] = []

    def after_step(self) -> None:
        self.values.append(self.trainer.storage.history("total_loss").latest())


def build_trainer(words: list[str]) -> FaceTrainer:
    """A seeded trainer of train_net's words."""
    arguments = train_net.parser().parse_args(words)
    cfg = train_net.load_cfg(arguments)
    train_net.default_setup(cfg, arguments)
    return FaceTrainer(cfg)


def losses_of(trainer: FaceTrainer) -> list[float]:
    """Trains, and gives the total loss of every iteration."""
    recorded = _Losses()
    trainer.register_hooks([recorded])
    trainer.train()
    return recorded.values


def on_gpu(words: list[str]) -> list[str]:
    """train_net's words for a run on the CPU, changed to one GPU."""
    place = words.index("--num-gpus") + 1
    return [*words[:place], "1", *words[place + 1 :], "MODEL.DEVICE", "cuda"]
