"""Training hooks that Detectron2 does not have."""

from __future__ import annotations

import logging
import math
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from face_d2.engine.checkpoint import FaceCheckpointer
from face_d2.engine.ema import ModelEMA
from face_d2.engine.loader import TrainLoader
from face_d2.utils.files import replaced_file

__all__ = ["BestCheckpoint", "PeriodicCheckpoints", "StopOnSignal", "UnreadableImages"]

logger = logging.getLogger(__name__)

#: Parts of the names of metrics in evaluation results: WIDER FACE and COCO, FDDB.
_METRICS = ("/AP", "fddb/")


class BestCheckpoint(HookBase):
    """Keeps the weights of the best evaluation in ``model_best.pth``.

    Detectron2 0.5 has no such hook, and that of later versions forgets the best value when training
    is resumed. This hook reads it from the file. Register it after the evaluation hook, in the main
    process only.

    Args:
        model: the model without its distributed wrapper.
        metric: name in the evaluation results; larger is better, e.g. "widerface/AP_hard".
        ema: if given, its averaged weights are saved, because they were evaluated.
    """

    def __init__(
        self,
        model: nn.Module,
        output_dir: str | Path,
        metric: str,
        *,
        ema: ModelEMA | None = None,
    ) -> None:
        self._model = model
        self._ema = ema
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
                logger.warning(
                    "%s was kept for another TEST.BEST_METRIC; the next evaluation's %s replaces "
                    "it.",
                    self._path,
                    self._metric,
                )

    def after_step(self) -> None:
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
        # No last_checkpoint entry and no optimizer: resuming uses the periodic checkpoints.
        state = {
            "model": self._ema.averages() if self._ema else self._model.state_dict(),
            "iteration": iteration,
            self._metric: float(value),
        }
        with replaced_file(self._path) as temporary:
            torch.save(state, temporary)
        message = "%s %.2f at iteration %d is the best so far: %s"
        logger.info(message, self._metric, value, iteration, self._path)

    after_train = after_step

    def _warn_if_missing(self) -> None:
        names = self.trainer.storage.latest()
        evaluated = any(part in name for name in names for part in _METRICS)
        if evaluated and not self._warned:
            self._warned = True
            logger.warning(
                "TEST.BEST_METRIC %s is not among the evaluated metrics; no best checkpoint is "
                "kept.",
                self._metric,
            )


class PeriodicCheckpoints(HookBase):
    """Saves checkpoints by iterations and by time, and deletes the oldest ones.

    The file names are those of Detectron2's hook, ``model_<iteration>.pth`` and
    ``model_final.pth``, and ``--resume`` continues from the file that was saved last. Register this
    hook in the main process only.

    Args:
        period: iterations between two checkpoints.
        minutes: a checkpoint is saved after the current iteration if the last one is older than
            this; 0 disables checkpoints by time.
        max_to_keep: maximum number of ``model_<iteration>.pth`` files; 0 keeps all. A resumed run
            includes the files of the run that it continues; files of other runs are not deleted.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        checkpointer: FaceCheckpointer,
        period: int,
        *,
        minutes: float = 0.0,
        max_to_keep: int = 0,
    ) -> None:
        if period < 1:
            raise ValueError(
                f"SOLVER.CHECKPOINT_PERIOD is {period}; expected at least 1 iteration."
            )
        if not 0 <= minutes < math.inf:
            raise ValueError(
                f"SOLVER.CHECKPOINT_MINUTES is {minutes}; expected minutes, or 0 for no "
                "checkpoints by time."
            )
        if max_to_keep < 0:
            raise ValueError(
                f"SOLVER.MAX_TO_KEEP is {max_to_keep}; expected a number of checkpoints, or 0 to "
                "keep all."
            )
        self._checkpointer = checkpointer
        self._period = period
        self._seconds = 60 * minutes
        self._max_to_keep = max_to_keep
        self._kept: list[Path] = []
        self._saved_iteration = -1

    def before_train(self) -> None:
        self._saved_at = time.monotonic()
        if self.trainer.start_iter > 0:
            self._kept = [
                path
                for iteration, path in _periodic_checkpoints(self._checkpointer.save_dir)
                if iteration < self.trainer.start_iter
            ]
        # A run that was killed between its last step and its final checkpoint has no step left.
        final = Path(self._checkpointer.save_dir) / "model_final.pth"
        if self.trainer.start_iter >= self.trainer.max_iter and not final.is_file():
            self._checkpointer.save("model_final", iteration=self.trainer.start_iter - 1)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        is_old = 0 < self._seconds <= time.monotonic() - self._saved_at
        if done % self._period == 0 or (is_old and done < self.trainer.max_iter):
            self.save()
        if done >= self.trainer.max_iter:
            self._save("model_final")

    def save(self) -> None:
        """Saves ``model_<iteration>.pth`` now, unless this iteration's checkpoint exists."""
        if self._saved_iteration == self.trainer.iter:
            return
        self._save(f"model_{self.trainer.iter:07d}")
        self._kept.append(Path(self._checkpointer.get_checkpoint_file()))
        while self._max_to_keep and len(self._kept) > self._max_to_keep:
            self._kept.pop(0).unlink(missing_ok=True)

    def _save(self, name: str) -> None:
        self._checkpointer.save(name, iteration=self.trainer.iter)
        self._saved_at = time.monotonic()
        self._saved_iteration = self.trainer.iter


def _periodic_checkpoints(folder: str | Path) -> list[tuple[int, Path]]:
    """The iteration and file of every ``model_<iteration>.pth``, oldest first."""
    found = (
        (re.fullmatch(r"model_(\d{7,})\.pth", path.name), path) for path in Path(folder).iterdir()
    )
    return sorted((int(match[1]), path) for match, path in found if match)


class StopOnSignal(HookBase):
    """Saves a checkpoint before Ctrl-C (SIGINT) or SIGTERM ends the training.

    The current training step is finished first, but not a running evaluation. A second signal ends
    the run immediately. Register this hook directly after ``checkpoints``, and only in
    single-process training: several processes would have to agree on the iteration.

    Raises:
        KeyboardInterrupt: raised by the training on SIGINT.
        SystemExit: raised by the training on SIGTERM, with exit status 143.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, checkpoints: PeriodicCheckpoints) -> None:
        self._checkpoints = checkpoints
        self._received: int | None = None
        self._done = -1  # the last complete iteration
        self._previous: dict[int, Any] = {}

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():  # others get no signals
            self._previous = {s: signal.signal(s, self._receive) for s in self._SIGNALS}

    def after_step(self) -> None:
        self._done = self.trainer.iter
        if self._received is not None:
            self._stop()

    def after_train(self) -> None:
        if self._received is not None and not self._is_stepping():
            self._checkpoints.save()
            logger.info("Stopped. --resume goes on from this checkpoint.")
        self._restore()

    def _receive(self, number: int, frame: object) -> None:
        again = self._received is not None
        self._received = number
        if again:
            self._restore()
        elif self._is_stepping():
            logger.info(
                "%s: this iteration is finished and a checkpoint is saved; once more to stop at "
                "once.",
                signal.Signals(number).name,
            )
        if again or not self._is_stepping():
            self._stop()

    def _is_stepping(self) -> bool:
        return self.trainer.iter != self._done

    def _stop(self) -> NoReturn:
        if self._received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


class UnreadableImages(HookBase):
    """Logs at the end of training which images the loader could not decode."""

    def __init__(self, loader: TrainLoader) -> None:
        self._loader = loader

    def after_train(self) -> None:
        files = self._loader.unreadable
        if self.trainer.iter == self.trainer.max_iter:  # after an error, others do not answer
            files = set().union(*comm.gather(files))
        if files:
            logger.warning(
                "%d training images could not be decoded; others took their place: %s",
                len(files),
                ", ".join(sorted(files)),
            )
