"""Detectron2's default trainer with this project's data, evaluation and best checkpoint."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from face_d2.config import require_keys, with_overrides
from face_d2.data.catalog import check_records, register_data_sets
from face_d2.data.mapper import FaceDatasetMapper, build_train_mapper
from face_d2.engine.amp import MixedPrecisionTrainer, amp_dtype
from face_d2.engine.checkpoint import FaceCheckpointer
from face_d2.engine.ema import build_ema
from face_d2.engine.finite import FiniteLossTrainer, NonFiniteLossError
from face_d2.engine.hooks import (
    BestCheckpoint,
    PeriodicCheckpoints,
    StopOnSignal,
    UnreadableImages,
)
from face_d2.engine.loader import TrainLoader
from face_d2.engine.optimizer import merge_groups, split_groups
from face_d2.engine.preflight import check_one_class, check_test_sets
from face_d2.engine.replay import save_batch
from face_d2.engine.sampler import TrainingBatches
from face_d2.evaluation import build_evaluator
from face_d2.modeling.layout import use_fast_layout
from face_d2.modeling.tta import MultiScaleTTA

__all__ = ["FaceTrainer"]

logger = logging.getLogger(__name__)

_NEW_RUN = "Or start a new run from its weights: MODEL.WEIGHTS FILE, and another OUTPUT_DIR."


class FaceTrainer(DefaultTrainer):
    """Trains any model of a Detectron2 config that learns boxes on faces, on GPUs or on the CPU.

    A run that was killed and resumed equals an uninterrupted one (bit for bit on a CPU): optimizer,
    schedule, order of the images and augmentation continue from the checkpoint.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # DefaultTrainer's constructor passes a CUDA device to DistributedDataParallel. This
        # constructor does the same as that one otherwise.
        TrainerBase.__init__(self)
        require_keys(cfg, "INPUT.MAPPER")
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        device, dtype = torch.device(cfg.MODEL.DEVICE).type, amp_dtype(cfg)
        register_data_sets([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        check_one_class(model, cfg.DATASETS.TRAIN)
        self._loader = data_loader
        placement = {"device_ids": None} if device == "cpu" else {}
        parallel = create_ddp_model(model, broadcast_buffers=False, **placement)
        if dtype is None:
            self._trainer = FiniteLossTrainer(parallel, data_loader, optimizer)
        else:
            self._trainer = MixedPrecisionTrainer(parallel, data_loader, optimizer, device, dtype)
        self._bare_model = model
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        # After DistributedDataParallel has copied the weights of the first process to all others.
        self._ema = build_ema(cfg, model)
        self.checkpointer = FaceCheckpointer(
            parallel, cfg.OUTPUT_DIR, ema=self._ema, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks([*self.build_hooks(), UnreadableImages(data_loader)])
        if comm.is_main_process():
            check_test_sets(cfg)

    def build_hooks(self) -> list[HookBase]:
        if self.cfg.TEST.AUG.ENABLED:
            MultiScaleTTA(self.cfg, self._bare_model)  # reports bad keys before training starts
        hooks = [own for hook in super().build_hooks() for own in self._own_hooks(hook)]
        if self.cfg.TEST.AUG.ENABLED:
            # Before the writers, which are the last hook and exist in the main process only.
            position = len(hooks) - int(comm.is_main_process())
            hooks.insert(position, EvalHook(0, self._test_with_tta_and_keep))
        if self.cfg.TEST.BEST_METRIC and comm.is_main_process():
            # After the evaluation, before the writers, which come last.
            hooks.insert(
                len(hooks) - 1,
                BestCheckpoint(
                    self._bare_model,
                    self.cfg.OUTPUT_DIR,
                    self.cfg.TEST.BEST_METRIC,
                    ema=self._ema,
                ),
            )
        return hooks

    def _own_hooks(self, hook: HookBase | None) -> list[HookBase]:
        """The hooks that replace one of Detectron2's hooks."""
        solver = self.cfg.SOLVER
        if hook is None:
            return []
        if isinstance(hook, PeriodicCheckpointer):
            checkpoints = PeriodicCheckpoints(
                self.checkpointer,
                solver.CHECKPOINT_PERIOD,
                minutes=solver.CHECKPOINT_MINUTES,
                max_to_keep=solver.MAX_TO_KEEP,
            )
            alone = comm.get_world_size() == 1
            return [checkpoints, StopOnSignal(checkpoints)] if alone else [checkpoints]
        if isinstance(hook, EvalHook):
            return [EvalHook(self.cfg.TEST.EVAL_PERIOD, self._test_and_keep)]
        return [hook]

    def state_dict(self) -> dict[str, Any]:
        # Detectron2 0.5 does not save the optimizer, so a resumed run would lose its momentum.
        return {
            **TrainerBase.state_dict(self),
            "_trainer": self._trainer.state_dict(),
            "data_seed": self._loader.batches.seed,
            **({"ema": self._ema.state_dict()} if self._ema else {}),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not {"_trainer", "data_seed"} <= state_dict.keys():
            raise ValueError(
                "the checkpoint is of a run of another trainer, for example Detectron2's, which "
                f"{type(self).__name__} cannot resume. {_NEW_RUN}"
            )
        TrainerBase.load_state_dict(self, state_dict)
        saved = state_dict["_trainer"]["optimizer"]["param_groups"]
        optimizer = self._trainer.optimizer
        single = all(len(group["params"]) == 1 for group in saved)
        if single and len(saved) != len(optimizer.param_groups):  # from before groups were merged
            split_groups(optimizer, self._bare_model.parameters())
        try:
            self._trainer.load_state_dict(state_dict["_trainer"])
        except ValueError as error:  # of the optimizer
            raise ValueError(
                f"the checkpoint is of a run that trains other parameters ({error}). Resume with "
                f"its network and its MODEL.BACKBONE.FREEZE_AT. {_NEW_RUN}"
            ) from error
        self._loader.batches.seed = state_dict["data_seed"]
        if "ema" not in state_dict:
            return
        if self._ema:
            self._ema.load_state_dict(state_dict["ema"])
        else:
            logger.warning(
                "The checkpoint holds averaged weights (SOLVER.EMA), this run averages none; it "
                "goes on from the weights that were trained."
            )
            self._bare_model.load_state_dict(state_dict["ema"]["weights"])

    def resume_or_load(self, resume: bool = True) -> None:
        super().resume_or_load(resume=resume)
        self.checkpointer.require_some()
        if self._ema and self._ema.updates == 0:  # no average to continue: use the loaded weights
            self._ema.start()
        self._loader.batches.start = self.start_iter

    def after_train(self) -> None:
        if self.iter < self.max_iter:
            # An error is being raised. In the last iteration, Detectron2 would evaluate before it
            # is reported. Evaluation needs all processes, but the others are still training.
            self._hooks = [hook for hook in self._hooks if not isinstance(hook, EvalHook)]
        super().after_train()

    def run_step(self) -> None:
        """One iteration.

        Raises:
            FloatingPointError: in every process, if one has an infinite or NaN loss. The message
                names its images and the file with the step (see :mod:`face_d2.engine.replay`). The
                weights are not changed.
        """
        try:
            super().run_step()
            if self._ema:
                self._ema.update()
        except NonFiniteLossError as error:
            report = self._keep_step(error) if error.is_own else ""
            # After all files are written, because the first process that ends terminates the
            # others.
            reports = filter(None, comm.all_gather(report))
            raise FloatingPointError("\n".join(reports)) from error

    def _keep_step(self, error: NonFiniteLossError) -> str:
        """Saves the batch of this process and the weights; returns the error message."""
        rank, alone = comm.get_rank(), comm.get_world_size() == 1
        name = f"nonfinite_{self.iter:07d}" + ("" if alone else f"_rank{rank}")
        path = Path(self.cfg.OUTPUT_DIR) / f"{name}.pth"
        save_batch(path, self._loader.latest, self._bare_model, self.iter)
        files = ", ".join(item["file_name"] for item in self._loader.latest)
        return (
            f"{error}\nThe images of process {rank}: {files}. {path} holds them as they were "
            "augmented, and the weights; face_d2.engine.replay.load_batch reads it."
        )

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model of a config, in the fastest memory layout of its device."""
        model = super().build_model(cfg)
        use_fast_layout(model, amp_dtype(cfg))
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Detectron2's optimizer, with one group for all parameters of equal settings."""
        optimizer = super().build_optimizer(cfg, model)
        merge_groups(optimizer)
        return optimizer

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        mapper = build_train_mapper(cfg)
        if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
            raise ValueError(
                f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN!r}; faces are one "
                'class, expected "TrainingSampler".'
            )
        for key in ("MASK_ON", "KEYPOINT_ON"):
            if cfg.MODEL[key]:
                raise ValueError(
                    f"MODEL.{key} is True, but the training mappers of faces give boxes alone; set "
                    "it to False, or train with Detectron2's own trainer (examples/train_net.py)."
                )
        register_data_sets(cfg.DATASETS.TRAIN)
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        )
        name = ", ".join(cfg.DATASETS.TRAIN)
        check_records(dataset, name)
        if not any(record["annotations"] for record in dataset):
            logger.warning("DATASETS.TRAIN %s has no faces; only background is learned.", name)
        processes = comm.get_world_size()
        if cfg.SOLVER.IMS_PER_BATCH % processes:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} cannot be shared out evenly to "
                f"{processes} processes."
            )
        grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING
        batches = TrainingBatches(
            [int(grouped and d["width"] > d["height"]) for d in dataset],
            cfg.SOLVER.IMS_PER_BATCH // processes,
            cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
            rank=comm.get_rank(),
            world_size=processes,
        )
        return TrainLoader(
            DatasetFromList(dataset, copy=False),
            mapper,
            batches,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            max_bad_fraction=cfg.DATALOADER.MAX_BAD_FRACTION,
            pin_memory=torch.device(cfg.MODEL.DEVICE).type == "cuda" and torch.cuda.is_available(),
        )

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        register_data_sets([dataset_name])
        return build_detection_test_loader(
            cfg, dataset_name, mapper=FaceDatasetMapper(cfg, is_train=False)
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        single_scale = with_overrides(cfg, ["TEST.AUG.ENABLED", False])
        return build_evaluator(single_scale, dataset_name, f"{cfg.OUTPUT_DIR}/inference")

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluates as Detectron2 does, but without cuDNN's search for the fastest kernels.

        ``CUDNN_BENCHMARK`` is useful if shapes repeat, as in training. Test images have hundreds of
        sizes, and each would start a search with its own workspace.
        """
        with _without_cudnn_search():
            return super().test(cfg, model, evaluators)

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Evaluates with multi-scale testing (``TEST.AUG``), as Detectron2's training script does.

        Returns:
            The results of ``test`` with names that end in ``_TTA``; the files are in
            ``inference_TTA``.
        """
        logger.info("Running inference with test-time augmentation ...")
        # All sizes are resized from the original image.
        original = with_overrides(cfg, ["INPUT.MIN_SIZE_TEST", 0])
        evaluators = [
            build_evaluator(original, name, f"{cfg.OUTPUT_DIR}/inference_TTA")
            for name in cfg.DATASETS.TEST
        ]
        results = cls.test(original, MultiScaleTTA(cfg, model), evaluators)
        return {f"{name}_TTA": value for name, value in results.items()}

    def _test_and_keep(self) -> dict[str, Any]:
        with self._evaluated_weights():
            self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def _test_with_tta_and_keep(self) -> dict[str, Any]:
        with self._evaluated_weights():
            results = self.test_with_TTA(self.cfg, self.model)
        # The return value of train(), and compared with TEST.EXPECTED_RESULTS.
        self._last_eval_results = {**self._last_eval_results, **results}
        return results

    @contextmanager
    def _evaluated_weights(self) -> Iterator[None]:
        """In this context, every process has the model of the main process's checkpoint.

        The model has the averaged weights, if there are any, and the BatchNorm statistics of the
        main process. In Detectron2, each process evaluates with its own statistics.
        """
        with self._ema.applied() if self._ema else nullcontext():
            if comm.get_world_size() > 1:
                for buffer in self._bare_model.buffers():
                    torch.distributed.broadcast(buffer, 0)
            yield


@contextmanager
def _without_cudnn_search() -> Iterator[None]:
    searches = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = searches
