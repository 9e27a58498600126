#!/usr/bin/env python
"""Checks training on this machine's GPUs in at most 8 minutes, and measures it.

    python tools/gpu_check.py

Stages, each in a process of its own:

* tests: the test suite's `cuda` tests;
* step/CONFIG: steps of the shipped schedules at their crop size, with a batch of 32 (half of it,
  and so on, where memory runs out), in fp32, fp16 and bf16: images a second, memory, the cost of
  averaging the weights; without cuDNN's search (CUDNN_BENCHMARK), which took 39 s for df2s2-lite0
  in one precision on an H100;
* evaluation/CONFIG: the training command on generated pictures, with loaders, SOLVER.EMA, cuDNN's
  search and evaluations inside training;
* processes: the same in two processes, over NCCL, where there are two GPUs.

Finished stages are kept in the result file: the same command goes on where an earlier one was
stopped or ran out of time, and repeats what failed. --fresh measures all of them again.

Exit status: 0 when all stages passed, 1 when one failed, when there is no GPU, or when the time was
over before the last stage.
"""

from __future__ import annotations

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
import argparse
import contextlib
import itertools
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from face_d2 import compat
from face_d2.analysis.cost import build_random, count_flops, noise_batch
from face_d2.cli.common import CommandParser, run
from face_d2.config import get_config_file, load_config
from face_d2.engine.amp import MixedPrecisionTrainer
from face_d2.engine.ema import ModelEMA
from face_d2.engine.finite import FiniteLossTrainer
from face_d2.engine.trainer import FaceTrainer
from face_d2.modeling.layout import use_fast_layout
from face_d2.synthetic.dataset import generate
from face_d2.utils.files import write_text

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = (
    "df2s2/df2s2_R50_FFP",
    "baseline/retinanet_R50_FPN",
    "lffd/lffd_25L8S",
    "lffd/lffd_20L5S",
)
#: What is trained with evaluations inside, and in which precision.
TRAINED = {"df2s2/df2s2_R50_FFP": "bfloat16", "lffd/lffd_25L8S": "float16"}
#: The files with tests marked cuda; to read all others takes a quarter of a minute.
CUDA_TESTS = ["tests/face_d2/engine/test_amp.py", "tests/face_d2/engine/test_gpu_settings.py"]
PRECISIONS = ("float32", "float16", "bfloat16")
#: Random weights whose products of maps stay finite.
FROM_RANDOM = ("MODEL.WEIGHTS", "", "MODEL.FFP.PSI_INIT_GAIN", 0.1, "MODEL.LFFD.INIT", "fixup")
#: With --device cpu: networks and pictures so small that all stages take a minute or two.
TINY = (
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 16, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.FFP.OUT_CHANNELS", 16),
    *("MODEL.DF2S2.CONV_DIM", 16, "INPUT.FACE_CROP.SIZE", 64, "INPUT.SCALE_SAMPLING.SIZE", 64),
    *("INPUT.MIN_SIZE_TEST", 64, "MODEL.DF2S2.TOPK_CANDIDATES_TEST", 20),
    *("MODEL.LFFD.TOPK_CANDIDATES_TEST", 20),
)


class Plan:
    """The stages and their sizes, for the device "cuda" or "cpu"."""

    def __init__(self, device: str) -> None:
        tiny = device == "cpu"
        self.device = device
        self.precisions = tuple(p for p in PRECISIONS if not (tiny and p == "float16"))
        self.configs = CONFIGS[::2] if tiny else CONFIGS
        self.trained = {k: "bfloat16" for k in CONFIGS[2:3]} if tiny else TRAINED
        self.batch = 2 if tiny else 32
        self.rounds = 2 if tiny else 12
        self.images = (4, 2) if tiny else (64, 24)
        self.iterations = 6 if tiny else 20  # the time of the first three is not written
        self.workers = 0 if tiny else min(8, os.cpu_count() or 1)
        self.opts = TINY if tiny else ()
        self.tests = CUDA_TESTS[:1] if tiny else CUDA_TESTS

    def stages(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """The work of each stage by its name, in order."""
        steps = {f"step/{name}": (lambda n=name: self.steps(n)) for name in self.configs}
        trained = {
            f"evaluation/{name}": (lambda n=name, p=precision: self.training(n, p, processes=1))
            for name, precision in self.trained.items()
        }
        return {"tests": self.cuda_tests, **steps, **trained, "processes": self.two_processes}

    def cuda_tests(self) -> dict[str, Any]:
        """Runs the tests that need a GPU and counts them."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", f"--junitxml={report}"]
            run = subprocess.run([*command, *self.tests], cwd=ROOT, capture_output=True, text=True)
            if run.returncode:
                raise RuntimeError(f"pytest ended with {run.returncode}:\n{run.stdout[-3000:]}")
            suite = ElementTree.parse(report).getroot().find("testsuite")
        tests, skipped = (int(suite.attrib[key]) for key in ("tests", "skipped"))
        return {"passed": tests - skipped, "skipped": skipped}

    def steps(self, name: str) -> dict[str, Any]:
        """Training steps of a schedule in every precision."""
        cfg = self.cfg(name, "SOLVER.BASE_LR", 1e-9)
        torch.backends.cudnn.benchmark = False  # a search takes longer than all steps
        crops = cfg.INPUT.FACE_CROP if cfg.INPUT.MAPPER == "face_crop" else cfg.INPUT.SCALE_SAMPLING
        side = int(crops.SIZE)
        forward = count_flops(build_random(cfg), (side, side))[""]
        found = {precision: self.step(cfg, side, precision) for precision in self.precisions}
        for row in found.values():  # forward, and backward taken for twice as much
            row["tera_operations_per_second"] = 2 * 3 * forward * row["images_per_second"] / 1e12
        return {"crop": side, **found}

    def step(self, cfg: CfgNode, side: int, precision: str) -> dict[str, Any]:
        """Steps with the largest batch that fits: all of it, a half, a quarter, ..."""
        batch = self.batch
        while True:
            try:
                return self.step_of(cfg, side, precision, batch)
            except torch.cuda.OutOfMemoryError:
                if batch == 1:
                    raise
                batch //= 2
            torch.cuda.empty_cache()

    def step_of(self, cfg: CfgNode, side: int, precision: str, batch: int) -> dict[str, Any]:
        """Median times of steps on a batch of noise, the same at each step."""
        dtype = None if precision == "float32" else getattr(torch, precision)
        model = build_random(cfg)
        use_fast_layout(model, dtype)
        ema = ModelEMA(model, cfg.SOLVER.EMA.DECAY)
        items = itertools.repeat(noise_batch(batch, side, pin=self.on_gpu))
        optimizer = FaceTrainer.build_optimizer(cfg, model)
        if dtype is None:
            trainer = FiniteLossTrainer(model, items, optimizer)
        else:
            trainer = MixedPrecisionTrainer(model, items, optimizer, self.device, dtype)
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        times: list[float] = []
        averaging: list[float] = []
        with EventStorage() as storage:
            for _ in range(3 + self.rounds):
                times.append(self.seconds(trainer.run_step))
                averaging.append(self.seconds(ema.update))
                storage.step()
            loss = storage.history("total_loss").latest()
        median = statistics.median(times[3:])
        found = {
            "batch": batch,
            "images_per_second": batch / median,
            "step_ms": 1e3 * median,
            "ema_ms": 1e3 * statistics.median(averaging[3:]),
        }
        if self.on_gpu:
            found["allocated_mib"] = torch.cuda.max_memory_allocated() / 2**20
            found["reserved_mib"] = torch.cuda.max_memory_reserved() / 2**20
        return {**found, "loss": loss}

    def training(self, name: str, precision: str, processes: int) -> dict[str, Any]:
        """The training command on generated pictures, with evaluations inside."""
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            train, val = self.images
            generate(folder, train_images=train, val_images=val, progress=False)
            flags = ["--num-gpus", str(processes)]
            if not self.on_gpu:
                flags = ["--num-gpus", "0", "--num-processes", str(processes)]
            keys = (
                *(*FROM_RANDOM, *self.opts, "SOLVER.IMS_PER_BATCH", self.batch * processes),
                # Frozen norms of random weights do not normalize.
                *("MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0),
                *("SOLVER.MAX_ITER", self.iterations, "SOLVER.STEPS", ()),
                *("SOLVER.EMA.ENABLED", True, "SOLVER.WARMUP_ITERS", 1000),
                *("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", precision),
                *("TEST.EVAL_PERIOD", self.iterations // 2, "TEST.BEST_METRIC", "bbox/AP"),
                *("DATALOADER.NUM_WORKERS", self.workers, "OUTPUT_DIR", run),
            )
            command = [sys.executable, "-m", "face_d2.train_net", "--config-file"]
            command += [get_config_file(f"{name}.yaml"), *flags, *map(str, keys)]
            env = {**os.environ, "DETECTRON2_DATASETS": folder}
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
            output = done.stdout + done.stderr
            if done.returncode:
                raise RuntimeError(f"training ended with {done.returncode}:\n{output[-3000:]}")
            last: dict[str, float] = {}  # a row has what is new since the one before
            for line in (run / "metrics.json").read_text().splitlines():
                last |= json.loads(line)
            if "bbox/AP" not in last or not math.isfinite(last["total_loss"]):
                raise RuntimeError(f"no evaluation, or no finite loss, in {last}")
            memory = re.findall(r"max_mem: (\d+)M", output)
            passes = re.findall(r"Total inference pure compute.*?\((\S+) s", output)
            return {
                "precision": precision,
                "processes": processes,
                "batch": self.batch * processes,
                "iterations": self.iterations,
                "step_seconds": last["time"],
                "data_seconds": last["data_time"],
                "evaluation_pass": [float(seconds) for seconds in passes],
                "max_mem_mib": int(memory[-1]) if memory else None,
                "loss": last["total_loss"],
            }

    def two_processes(self) -> dict[str, Any]:
        """:meth:`training` by two processes, on a GPU each or on the CPU."""
        if self.on_gpu and torch.cuda.device_count() < 2:
            return {"skipped": "one GPU; NCCL needs two"}
        name, precision = next(iter(self.trained.items()))
        return self.training(name, precision, processes=2)

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def cfg(self, name: str, *overrides: object) -> CfgNode:
        """A shipped config on the device, from random weights."""
        keys = [*FROM_RANDOM, *self.opts, "MODEL.DEVICE", self.device, *overrides]
        return load_config(f"{name}.yaml", keys)

    def seconds(self, work: Callable[[], Any]) -> float:
        """The time that the work takes, including its part on the GPU."""
        if self.on_gpu:
            torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - begun


def environment(device: str) -> dict[str, Any]:
    """What the figures depend on; results of another environment are measured again."""
    found: dict[str, Any] = {
        "device": device,
        "torch": torch.__version__,
        "detectron2": compat.detectron2_version(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    if device != "cpu":
        gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        found |= {
            "gpus": [gpu.name for gpu in gpus],
            "memory_mib": [gpu.total_memory // 2**20 for gpu in gpus],
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def run_stage(name: str, device: str, seconds: float) -> dict[str, Any]:
    """Runs one stage in a process of its own; gives its result, or ``error``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stage.json"
        command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve())]
        process = subprocess.Popen(
            [*command, "--device", device, "--stage", name, "--json", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        begun = time.monotonic()
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return {"error": f"not finished after {seconds:.0f} s", "out_of_time": True}
            raise
        spent = {"seconds": round(time.monotonic() - begun, 1)}
        if process.returncode:
            return {"error": output[-3000:].strip(), **spent}
        return {**json.loads(file.read_text()), **spent}


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown, for docs/reproduce.md."""
    lines = [
        "| config | precision | batch | images/s | 10^12 op./s | memory, MiB | EMA, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage, found in result["stages"].items():
        for precision in PRECISIONS:
            if row := found.get(precision):
                memory = f"{row['reserved_mib']:.0f}" if "reserved_mib" in row else "-"
                lines.append(
                    f"| `{stage.removeprefix('step/')}` | {precision} | {row['batch']} | "
                    f"{row['images_per_second']:.1f} | {row['tera_operations_per_second']:.2f} | "
                    f"{memory} | {row['ema_ms']:.2f} |"
                )
    return "\n".join(lines)


def check(device: str, path: Path, minutes: float, fresh: bool) -> int:
    """Runs what is left to do; gives the exit status."""
    deadline = time.monotonic() + 60 * minutes
    result: dict[str, Any] = {"environment": environment(device), "stages": {}}
    if path.is_file() and not fresh:
        earlier = json.loads(path.read_text())
        if earlier["environment"] == result["environment"]:
            result["stages"] = {k: v for k, v in earlier["stages"].items() if "error" not in v}
        else:
            print(f"{path} is of another environment; all stages run again.", flush=True)
    names = list(Plan(device).stages())
    for number, name in enumerate(names, 1):
        left = deadline - time.monotonic()
        if name in result["stages"]:
            print(f"[{number}/{len(names)}] {name}: done before", flush=True)
            continue
        if left < 10:
            break
        print(f"[{number}/{len(names)}] {name}, {left:.0f} s left ...", flush=True)
        found = run_stage(name, device, left)
        result["stages"][name] = found
        print(f"    {'FAILED: ' + found['error'] if 'error' in found else found}", flush=True)
        write_text(json.dumps(result, indent=2) + "\n", path)
    print(table(result))
    print("RESULT " + json.dumps(result))
    ended = result["stages"].values()
    if len(ended) < len(names) or any("out_of_time" in found for found in ended):
        print(f"The {minutes:g} minutes are over; the same command continues.", file=sys.stderr)
        return 1
    return int(any("error" in found for found in ended))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "tools/gpu_check.py",
        "Checks training on this machine's GPUs in at most 8 minutes, and measures it: the tests "
        "marked cuda, training steps in three precisions, training with evaluations, and two "
        "processes where there are two GPUs.",
        examples=(
            "python tools/gpu_check.py",
            "python tools/gpu_check.py --device cpu     (tests this program)",
        ),
        epilog="The same command continues a run that was stopped or that ran out of time.",
    )
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu: tiny, to test this program"
    )
    parser.add_argument("--minutes", type=float, default=8.0, metavar="M", help="when to stop (8)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        help="the result file (benchmarks/results/gpu_check.json; output/gpu_check_cpu.json)",
    )
    parser.add_argument("--fresh", action="store_true", help="forget finished stages")
    parser.add_argument("--stage", help=argparse.SUPPRESS)  # of the processes started here
    args = parser.parse_args(argv)
    if args.stage:
        args.json.write_text(json.dumps(Plan(args.device).stages()[args.stage]()))
        return 0
    on_gpu = args.device == "cuda"
    default = "benchmarks/results/gpu_check.json" if on_gpu else "output/gpu_check_cpu.json"

    def work() -> int:
        if on_gpu and not torch.cuda.is_available():
            raise OSError("no CUDA device is available; nothing was checked")
        return check(args.device, args.json or ROOT / default, args.minutes, args.fresh)

    return run(work)


if __name__ == "__main__":
    sys.exit(main())
