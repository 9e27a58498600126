"""The length of a training that has to end at a time, and its progress.

The speed of the first steps gives the number of iterations. A training whose speed changes gets a
new number: it saves a checkpoint and goes on from it with the new schedule, so that the learning
rate still ends at zero.
"""

from __future__ import annotations

import csv
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
from detectron2.config import CfgNode
from detectron2.engine import HookBase

from face_d2.engine.hooks import PeriodicCheckpoints
from face_d2.engine.trainer import FaceTrainer
from face_d2.finetune.choices import set_length

__all__ = ["Length", "minutes", "read_losses", "train"]

logger = logging.getLogger(__name__)

#: Steps at the start of a leg that are not measured: workers and memory start up.
_WARM_STEPS = 2
#: Steps from which the speed is told.
_MEASURED_STEPS = 5
#: When they take more than a tenth of the time that is left, so many are enough.
_FEWEST_STEPS = 2
#: A plan is changed if it would end so much later, or earlier, relative to the time that is left.
_LATE, _EARLY = 0.1, 0.25
#: While nothing is known of the speed, the learning rate warms up over so many steps.
_UNKNOWN_LENGTH, _UNKNOWN_WARM_UP = 1_000_000, 100
#: The speed is that of the last steps, at most so many.
_RECENT_STEPS = 20
_PROGRESS_SECONDS = 10.0


@dataclass
class Length:
    """How long to train.

    Attributes:
        iterations: the plan; 0 while it is not known.
        deadline: end of the training by ``time.monotonic()``; None trains all iterations.
    """

    iterations: int
    deadline: float | None = None


class _NewLength(BaseException):
    """Ends the training loop. Detectron2 would log an ``Exception`` with its traceback."""


def train(cfg: CfgNode, length: Length, given: set[str], say: logging.Logger = logger) -> int:
    """Trains, from the last checkpoint in ``OUTPUT_DIR`` if there is one.

    Sets ``SOLVER.MAX_ITER`` and, unless it is in ``given`` (the keys that the user set),
    ``SOLVER.WARMUP_ITERS``. Returns the number of iterations.
    """
    losses = Path(cfg.OUTPUT_DIR) / "loss.csv"
    while True:
        started = time.monotonic()
        if length.iterations:
            set_length(cfg, length.iterations, given)
        else:
            cfg.SOLVER.MAX_ITER = _UNKNOWN_LENGTH
            if "SOLVER.WARMUP_ITERS" not in given:
                cfg.SOLVER.WARMUP_ITERS = _UNKNOWN_WARM_UP
        trainer = FaceTrainer(cfg)
        trainer.resume_or_load(resume=True)
        trainer.register_hooks([_Progress(losses, length, say), _Pace(length, started)])
        try:
            trainer.train()
            return cfg.SOLVER.MAX_ITER
        except _NewLength:
            say.info("The speed of the last steps gives %d iterations in all.", length.iterations)


class _Pace(HookBase):
    """Compares the plan with the speed and ends the loop when it has to change."""

    def __init__(self, length: Length, started: float) -> None:
        self._length = length
        self._started = started
        self._times: list[float] = []

    def before_train(self) -> None:
        self._start_up = time.monotonic() - self._started

    def after_step(self) -> None:
        self._times.append(time.monotonic())
        steps = len(self._times) - 1 - _WARM_STEPS
        if self._length.deadline is None or steps < _FEWEST_STEPS:
            return
        left = self._length.deadline - self._times[-1]
        recent = self._times[-1 - min(steps, _RECENT_STEPS) :]
        if steps < _MEASURED_STEPS and recent[-1] - recent[0] < _LATE * left:
            return
        seconds = (recent[-1] - recent[0]) / (len(recent) - 1)
        done = self.trainer.iter + 1
        planned = (self.trainer.max_iter - done) * seconds
        known = self._length.iterations > 0
        if known and (planned <= 0 or self._fits(planned, left)):
            return
        # A new leg starts a new loader and repeats the slow steps.
        usable = left - self._start_up - _WARM_STEPS * seconds
        more = int(max(0.0, usable) / seconds)
        checkpoints = next(h for h in self.trainer._hooks if isinstance(h, PeriodicCheckpoints))
        checkpoints.save()
        self._length.iterations = done + more
        raise _NewLength

    def _fits(self, planned: float, left: float) -> bool:
        """Whether the plan stays: a new leg costs its start."""
        late = max(_LATE * left, 2 * self._start_up)
        early = max(_EARLY * left, 4 * self._start_up)
        return planned <= left + late and left - planned <= early


class _Progress(HookBase):
    """Writes the loss of every iteration and tells the progress."""

    def __init__(self, path: Path, length: Length, say: logging.Logger) -> None:
        self._path = path
        self._length = length
        self._say = say
        self._told = time.monotonic()

    def before_train(self) -> None:
        rows = [row for row in read_losses(self._path) if row[0] < self.trainer.start_iter]
        self._file = self._path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(("iteration", "loss", "learning_rate"))
        self._writer.writerows(rows)
        self._start = time.monotonic()

    def after_step(self) -> None:
        loss = self.trainer.storage.history("total_loss").latest()
        rate = self.trainer.storage.history("lr").latest()
        self._writer.writerow((self.trainer.iter, f"{loss:.6g}", f"{rate:.6g}"))
        now = time.monotonic()
        if now - self._told < _PROGRESS_SECONDS or not self._length.iterations:
            return
        self._told = now
        self._file.flush()
        done, all_of = self.trainer.iter + 1, self.trainer.max_iter
        here = done - self.trainer.start_iter
        left = (all_of - done) * (now - self._start) / here
        smooth = self.trainer.storage.history("total_loss").median(20)
        self._say.info(
            "iteration %d of %d, loss %.3f, %s left", done, all_of, smooth, minutes(left)
        )

    def after_train(self) -> None:
        self._file.close()


def read_losses(path: Path) -> list[tuple[int, float, float]]:
    """(iteration, loss, learning rate) of every iteration so far."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in list(csv.reader(file))[1:]:
            try:
                iteration, loss, rate = row
                rows.append((int(iteration), float(loss), float(rate)))
            except ValueError:  # a killed run may leave an incomplete line
                break
    return rows


def minutes(seconds: float) -> str:
    """A duration for a person: "45 s", "12 min 5 s", "3 h 10 min"."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    if hours:
        return f"{hours} h {rest // 60} min"
    return f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{rest} s"
