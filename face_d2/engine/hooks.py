"""Hooks that Detectron2 lacks."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from face_d2.engine.loader import TrainLoader
from face_d2.utils.files import replaced_file

__all__ = ["BestCheckpoint", "UnreadableImages"]

#: Parts of the names of figures that an evaluation leaves: WIDER FACE's and COCO's, FDDB's.
_FIGURES = ("/AP", "fddb/")


class BestCheckpoint(HookBase):
    """Keeps the weights of the best evaluation in ``model_best.pth``.

    Detectron2's own hook is absent from 0.5 and forgets the best value when training is resumed;
    this one reads it back from the file. Register it after the evaluation hook, in the main process
    only.

    Args:
        model: the model without its distributed wrapper.
        output_dir: where the file goes.
        metric: name in the evaluation results, larger is better, e.g. "widerface/AP_hard".
    """

    def __init__(self, model: nn.Module, output_dir: str | Path, metric: str) -> None:
        self._model = model
        self._path = Path(output_dir) / "model_best.pth"
        self._metric = metric
        self._best = -math.inf
        self._warned = False
        self._seen_iteration = -1

    def before_train(self) -> None:
        if self.trainer.start_iter > 0 and self._path.is_file():
            kept = torch.load(self._path, weights_only=True)
            if self._metric in kept:
                self._best = float(kept[self._metric])
            else:
                logging.getLogger(__name__).warning(
                    "%s was kept for another TEST.BEST_METRIC; the next evaluation's %s replaces "
                    "it.",
                    self._path,
                    self._metric,
                )

    def after_step(self) -> None:
        self._keep_if_best()

    def after_train(self) -> None:
        self._keep_if_best()

    def _keep_if_best(self) -> None:
        latest = self.trainer.storage.latest().get(self._metric)
        if latest is None:
            self._warn_if_missing()
            return
        value, iteration = latest
        if iteration == self._seen_iteration:
            return
        self._seen_iteration = iteration
        if not value > self._best:  # NaN is never the best
            return
        self._best = value
        # No last_checkpoint entry and no optimizer: resuming goes on from the periodic checkpoint.
        state = {
            "model": self._model.state_dict(),
            "iteration": iteration,
            self._metric: float(value),
        }
        with replaced_file(self._path) as temporary:
            torch.save(state, temporary)
        logging.getLogger(__name__).info(
            "%s %.2f at iteration %d is the best so far: %s",
            self._metric,
            value,
            iteration,
            self._path,
        )

    def _warn_if_missing(self) -> None:
        names = self.trainer.storage.latest()
        evaluated = any(part in name for name in names for part in _FIGURES)
        if evaluated and not self._warned:
            self._warned = True
            logging.getLogger(__name__).warning(
                "TEST.BEST_METRIC %s is not among the evaluated metrics; no best checkpoint is "
                "kept.",
                self._metric,
            )


class UnreadableImages(HookBase):
    """Says at the end of training which images could not be decoded.

    Args:
        loader: whose images.
    """

    def __init__(self, loader: TrainLoader) -> None:
        self._loader = loader

    def after_train(self) -> None:
        files = self._loader.unreadable
        if self.trainer.iter == self.trainer.max_iter:  # after an error others do not answer
            files = set().union(*comm.gather(files))
        if files:
            logging.getLogger(__name__).warning(
                "%d training images could not be decoded; others took their place: %s",
                len(files),
                ", ".join(sorted(files)),
            )
