"""Detectron2's default trainer with this project's data, evaluation and best checkpoint."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from face_d2.data.mapper import FaceDatasetMapper
from face_d2.data.scale_sampling import ScaleSamplingMapper
from face_d2.engine.hooks import BestCheckpoint
from face_d2.evaluation import build_evaluator

__all__ = ["FaceTrainer"]

_MAPPERS: dict[str, Callable[..., Any]] = {
    "face_crop": FaceDatasetMapper,
    "scale_sampling": ScaleSamplingMapper,
}


class FaceTrainer(DefaultTrainer):
    """Trains any model of a Detectron2 config on faces, on GPUs or on the CPU."""

    def __init__(self, cfg: CfgNode) -> None:
        # DefaultTrainer's own constructor hands DistributedDataParallel a CUDA device; the rest is
        # assembled here as it does it.
        TrainerBase.__init__(self)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        on_cpu = torch.device(cfg.MODEL.DEVICE).type == "cpu"
        placement = {"device_ids": None} if on_cpu else {}
        parallel = create_ddp_model(model, broadcast_buffers=False, **placement)
        engine = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = engine(parallel, data_loader, optimizer)
        self._bare_model = model
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(
            parallel, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        hooks = super().build_hooks()
        if self.cfg.TEST.BEST_METRIC and comm.is_main_process():
            # After the evaluation, before the writers, which come last.
            hooks.insert(
                len(hooks) - 1,
                BestCheckpoint(self._bare_model, self.cfg.OUTPUT_DIR, self.cfg.TEST.BEST_METRIC),
            )
        return hooks

    def state_dict(self) -> dict[str, Any]:
        # Detectron2 0.5 leaves the optimizer out, so that a resumed run loses its momentum.
        return {**TrainerBase.state_dict(self), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        TrainerBase.load_state_dict(self, state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        if cfg.INPUT.MAPPER not in _MAPPERS:
            raise ValueError(
                f"INPUT.MAPPER is {cfg.INPUT.MAPPER!r}; expected one of {sorted(_MAPPERS)}."
            )
        return build_detection_train_loader(cfg, mapper=_MAPPERS[cfg.INPUT.MAPPER](cfg, True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        return build_detection_test_loader(
            cfg, dataset_name, mapper=FaceDatasetMapper(cfg, is_train=False)
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name, f"{cfg.OUTPUT_DIR}/inference")
