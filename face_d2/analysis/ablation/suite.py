"""Suites of trainings: the rows of a table, each trained with several seeds.

A suite is a YAML file ``rows: {label: config}`` with paths relative to the file. A row is named
after its config. Every run is a training by :mod:`face_d2.analysis.ablation.run` in a separate
process. A finished run writes a JSON file and is not repeated, even if the JSON files are copied to
another machine. A stopped run continues from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from face_d2.config import get_config_file
from face_d2.utils.files import write_json
from face_d2.utils.processor import usable_cores

__all__ = ["Run", "Suite", "SuiteRunner", "read_suite", "shipped_suites"]

_CHILD = [sys.executable, "-m", "face_d2.analysis.ablation.run"]
_POLL_SECONDS = 0.5
_TAIL = 15  # number of output lines that are shown of a failed run


@dataclass(frozen=True)
class Suite:
    """The rows of a table.

    Attributes:
        name: the name of the file.
        rows: name of the config -> (label in the table, path of the config).
        title: the first comment line of the file.
    """

    name: str
    rows: dict[str, tuple[str, Path]]
    title: str


@dataclass(frozen=True)
class Run:
    """One training of a suite.

    Attributes:
        row: name of the row.
        seed: seed of weights, order and augmentation.
        config: path of the config.
        folder: output folder of the training, including checkpoints.
        result: the JSON file of the finished run.
    """

    row: str
    seed: int
    config: Path
    folder: Path
    result: Path

    def iteration(self) -> int:
        """Number of iterations that the run has logged so far."""
        try:
            last = (self.folder / "metrics.json").read_text().splitlines()[-1]
            return int(json.loads(last)["iteration"]) + 1
        except (OSError, IndexError, KeyError, ValueError):  # not started, or an incomplete line
            return 0


def shipped_suites() -> dict[str, Path]:
    """Name -> file of the suites that ship with the project."""
    folder = Path(get_config_file("ablation/suites/headline.yaml")).parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_suite(name: str) -> Suite:
    """Reads a suite.

    Args:
        name: a YAML file, or the name of a shipped one (``configs/ablation/suites``).

    Raises:
        FileNotFoundError: the suite does not exist, or one of its configs is missing.
        ValueError: the file is not a suite, or two rows have configs of the same name.
    """
    path = Path(name)
    if not path.suffix:
        if name not in (shipped := shipped_suites()):
            raise FileNotFoundError(
                f"no suite {name!r}; there are: {', '.join(shipped)}. A suite of your own is named "
                "by its file, SUITE.yaml."
            )
        path = shipped[name]
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, dict) or not rows or not all(isinstance(c, str) for c in rows.values()):
        raise ValueError(f"{path}: expected 'rows:' with a line 'label: config.yaml' for each row.")
    configs: dict[str, tuple[str, Path]] = {}
    for label, relative in rows.items():
        config = (path.parent / relative).resolve()
        if not config.is_file():
            raise FileNotFoundError(
                f"{path}: row {label!r} names {relative}, which does not exist."
            )
        if config.stem in configs:
            raise ValueError(
                f"{path}: rows {configs[config.stem][0]!r} and {label!r} both have a config named "
                f"{config.stem}; rows are told apart by it."
            )
        configs[config.stem] = (str(label), config)
    first = text.splitlines()[0]
    title = first.lstrip("# ").rstrip() if first.startswith("#") else path.stem
    return Suite(path.stem, configs, title)


class SuiteRunner:
    """Trains the unfinished runs of a suite.

    Args:
        suite: the suite.
        seeds: the seeds of every row.
        output: folder of the trainings.
        results: folder of the JSON files of finished runs, which suites with equal rows share.
        opts: config overrides KEY, VALUE, ... for every run.
        num_gpus: number of GPUs of one run; 0 trains on the CPU.
        num_processes: number of processes of one run on the CPU.
        jobs: number of simultaneous runs. Each has its own GPUs, or its share of the cores.

    Raises:
        ValueError: there is no seed or no job, or there are too few GPUs.
    """

    def __init__(
        self,
        suite: Suite,
        seeds: Sequence[int],
        output: Path,
        results: Path,
        *,
        opts: Sequence[str] = (),
        num_gpus: int = 0,
        num_processes: int = 1,
        jobs: int = 1,
    ) -> None:
        if jobs < 1 or not seeds:
            raise ValueError("at least one job and one seed are needed.")
        needed = jobs * num_gpus
        if needed and needed > (available := len(_visible_gpus())):
            raise ValueError(
                f"{jobs} jobs of {num_gpus} GPUs each need {needed}; {available} are available."
            )
        self.suite, self.opts = suite, list(opts)
        self.num_gpus, self.num_processes, self.jobs = num_gpus, num_processes, jobs
        self._settings: dict[Run, dict[str, Any]] = {}
        # All rows of a seed run before the next seed, so that a stopped suite has compared all
        # rows.
        self.runs = [
            Run(
                row=row,
                seed=seed,
                config=config,
                folder=output / "runs" / f"{row}-seed{seed}",
                result=results / f"{row}-seed{seed}.json",
            )
            for seed in seeds
            for row, (_, config) in suite.rows.items()
        ]

    def pending(self) -> list[Run]:
        """The runs without a result.

        Raises:
            ValueError: the settings of a run differ from those of its result or its stopped
                training; the message names the first difference.
        """
        from face_d2.analysis.ablation.run import check_settings, run_settings

        waiting = []
        for run in self.runs:
            settings = self._settings[run] = run_settings(self._arguments(run))
            if run.result.is_file():
                check_settings(run.result, settings)
                continue
            stopped = run.folder / "settings.json"
            if stopped.is_file():
                check_settings(stopped, settings)
            waiting.append(run)
        return waiting

    def run(self, progress: bool = True) -> list[str]:
        """Trains all pending runs, with a progress bar over their iterations.

        Returns:
            One entry for each failed run: its last lines of output, and the file with all of it.
        """
        from face_d2.analysis.ablation.run import planned_iterations

        waiting = self.pending()
        length = {run: planned_iterations(self._arguments(run)) for run in waiting}
        reached = {run: min(run.iteration(), length[run]) for run in waiting}
        slots = list(range(min(self.jobs, len(waiting))))
        running: dict[Run, tuple[subprocess.Popen[bytes], int]] = {}
        failures: list[str] = []
        bar = tqdm(
            total=sum(length.values()),
            initial=sum(reached.values()),
            unit="it",
            desc=self.suite.name,
            disable=not progress,
        )
        try:
            while waiting or running:
                while waiting and slots:
                    slot, run = slots.pop(), waiting.pop(0)
                    running[run] = (self._start(run, slot), slot)
                    bar.set_postfix_str(self._state(running))
                time.sleep(_POLL_SECONDS)
                for run, (process, slot) in list(running.items()):
                    code = process.poll()
                    now = length[run] if code is not None else min(run.iteration(), length[run])
                    if now > reached[run]:  # an update by 0 would print a line
                        bar.update(now - reached[run])
                        reached[run] = now
                    if code is None:
                        continue
                    del running[run]
                    slots.append(slot)
                    if code or not run.result.is_file():
                        failures.append(_failure(run, code))
                        bar.write(failures[-1])
        finally:
            for process, _ in running.values():  # the suite was stopped
                process.terminate()
            for process, _ in running.values():
                process.wait()
            bar.set_postfix_str(self._state(running))
            bar.close()
        return failures

    def _state(self, running: Iterable[Run]) -> str:
        done = sum(run.result.is_file() for run in self.runs)
        names = ", ".join(f"{run.row} seed {run.seed}" for run in running)
        return f"{done}/{len(self.runs)} runs done" + (f"; now {names}" if names else "")

    def _arguments(self, run: Run) -> list[str]:
        """The command-line arguments of :mod:`face_d2.analysis.ablation.run` for a run."""
        device = "cuda" if self.num_gpus else "cpu"
        return [
            *("--result", str(run.result), "--config-file", str(run.config), "--resume"),
            *("--num-gpus", str(self.num_gpus), "--num-processes", str(self.num_processes)),
            *("MODEL.DEVICE", device, *self.opts),
            *("OUTPUT_DIR", str(run.folder), "SEED", str(run.seed)),
        ]

    def _start(self, run: Run, slot: int) -> subprocess.Popen[bytes]:
        write_json({"settings": self._settings[run]}, run.folder / "settings.json")
        environment = dict(os.environ)
        if self.num_gpus and self.jobs > 1:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus(slot))
        elif self.jobs > 1:
            share = max(usable_cores() // self.jobs, 1)
            environment.setdefault("OMP_NUM_THREADS", str(share))
        command = [*_CHILD, *self._arguments(run)]
        with (run.folder / "console.txt").open("ab") as console:
            return subprocess.Popen(
                command, stdout=console, stderr=subprocess.STDOUT, env=environment
            )

    def _gpus(self, slot: int) -> list[str]:
        return _visible_gpus()[slot * self.num_gpus : (slot + 1) * self.num_gpus]


def _visible_gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    import face_d2.needs_detectron2  # isort: skip  (says how to install what is missing)

    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _failure(run: Run, code: int) -> str:
    console = run.folder / "console.txt"
    tail = console.read_text(errors="replace").splitlines()[-_TAIL:]
    lines = "\n".join(f"    {line}" for line in tail)
    return f"{run.row} seed {run.seed} failed (exit {code}); all of it: {console}\n{lines}"
