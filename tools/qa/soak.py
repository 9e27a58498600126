"""Memory and open files over a long training and many predictions (Linux).

Claim measured: after a warm-up, the minimum of the resident memory changes by at most 3 %, and the
number of open files does not grow, over 2,000 training iterations (generated faces, two loader
processes) and over 5,000 predictions on images of varied sizes. DF2S2 and LFFD are measured in
separate processes.

    python tools/qa/soak.py --help
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import df2s2_d2  # isort: skip  (patches Detectron2 before its first import)

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine.hooks import CallbackHook

from face_d2 import FaceDetector
from face_d2.cli.common import CommandParser, print_result, run
from face_d2.config import load_config
from face_d2.data.register import register_wider_face
from face_d2.data.wider_face import split_paths
from face_d2.engine.trainer import FaceTrainer
from face_d2.synthetic.dataset import generate

DETECTORS = ("df2s2", "lffd")
GOAL = 0.03
_WARM_UP = 0.25  # share of the steps
_WINDOWS = 8  # in a quarter


def resident() -> int:
    """Resident memory of this process and its children, in bytes."""
    me = str(os.getpid())
    pages = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = process.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            if me in (process.name, parent):
                pages += int(process.joinpath("statm").read_text().split()[1])
        except OSError:  # the process has ended
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


class Samples:
    """Memory and open files after every step."""

    def __init__(self) -> None:
        self._memory: list[int] = []
        self._files: list[int] = []

    def step(self) -> None:
        self._memory.append(resident())
        self._files.append(len(os.listdir("/proc/self/fd")))

    def summary(self) -> dict[str, Any]:
        """Compares the first and the last quarter of the steps after the warm-up.

        Free heap and the loader's queued batches change from step to step; a leak raises the
        minimum. The goal is therefore set for the minimum; median and peak are reported too.
        """
        first = int(len(self._memory) * _WARM_UP)
        memory, files = np.array(self._memory[first:]), np.array(self._files[first:])
        quarter = max(len(memory) // 4, 1)
        # The median over short windows of each window's minimum: a single step has little weight.
        window = max(quarter // _WINDOWS, 1)
        held: dict[str, list[float]] = {"minimum": [], "median": [], "peak": []}
        for part in (memory[:quarter], memory[-quarter:]):
            minima = [part[i : i + window].min() for i in range(0, quarter, window)]
            held["minimum"].append(float(np.median(minima)) / 1e6)
            held["median"].append(float(np.median(part)) / 1e6)
            held["peak"].append(float(part.max()) / 1e6)
        growth = {name: after / before - 1 for name, (before, after) in held.items()}
        open_files = [int(part.min()) for part in (files[:quarter], files[-quarter:])]
        return {
            "steps": len(self._memory),
            "mb": held,
            "growth": growth,
            "open_files": open_files,
            "met": abs(growth["minimum"]) <= GOAL and open_files[1] <= open_files[0],
        }


def config(detector: str, folder: Path, iterations: int) -> CfgNode:
    cfg = load_config(f"quick/{detector}_synth.yaml")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("soak_train",), ()
    cfg.MODEL.DEVICE = "cpu"
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 2, iterations, ()
    cfg.SOLVER.CHECKPOINT_PERIOD = max(iterations // 4, 1)
    cfg.INPUT.FACE_CROP.SIZE = cfg.INPUT.SCALE_SAMPLING.SIZE = 160
    cfg.DATALOADER.NUM_WORKERS = 2
    cfg.TEST.BEST_METRIC = ""
    cfg.SEED = 0
    cfg.OUTPUT_DIR = str(folder)
    return cfg


def soak(
    detector: str, root: Path, folder: Path, iterations: int, predictions: int, threads: int
) -> dict[str, Any]:
    """Trains and predicts in this process; ``root`` holds the generated faces."""
    torch.set_num_threads(threads)
    logging.getLogger("detectron2").setLevel(logging.WARNING)
    register_wider_face("soak_train", *split_paths(root, "train"))
    cfg = config(detector, folder, iterations)
    folder.mkdir()
    training = Samples()
    trainer = FaceTrainer(cfg)
    trainer.register_hooks([CallbackHook(after_step=lambda _: training.step())])
    trainer.train()
    del trainer  # and with it the loader's processes

    (folder / "config.yaml").write_text(cfg.dump())
    found = FaceDetector.from_config(
        folder / "config.yaml", folder / "model_final.pth", device="cpu", score_threshold=0.02
    )
    rng = np.random.default_rng(0)
    predicting = Samples()
    for _ in range(predictions):
        height, width = rng.integers(40, 400, 2)
        found.detect(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        predicting.step()
    return {"training": training.summary(), "prediction": predicting.summary()}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = CommandParser(
        "tools/qa/soak.py",
        "Measures memory and open files over a long training and many predictions (Linux).",
        examples=(
            "python tools/qa/soak.py",
            "python tools/qa/soak.py --iterations 60 --predictions 150     (about a minute)",
        ),
    )
    numbers = (
        ("--iterations", 2000, "of training"),
        ("--predictions", 5000, "on images of 40 to 400 pixels"),
        ("--threads", 2, "of PyTorch"),
    )
    for flag, default, words in numbers:
        parser.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{words} (%(default)s)"
        )
    parser.add_argument(
        "--detectors", nargs="+", choices=DETECTORS, default=DETECTORS, help="one or more"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the result here")
    args = parser.parse_args(argv)
    return run(lambda: soak_all(args))


def soak_all(args: argparse.Namespace) -> int:
    """Runs the detectors one after the other; returns the exit status."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        root = generate(Path(place) / "faces", train_images=24, val_images=1, progress=False)
        for detector in args.detectors:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                steps = (args.iterations, args.predictions, args.threads)
                job = process.submit(soak, detector, root, Path(place) / detector, *steps)
                result[detector] = job.result()
            for part, row in result[detector].items():
                memory = ", ".join(
                    f"{name} {before:.0f} to {after:.0f} MB ({100 * row['growth'][name]:+.1f} %)"
                    for name, (before, after) in row["mb"].items()
                )
                files = " to ".join(map(str, row["open_files"]))
                print(
                    f"{detector:6} {part:10} {row['steps']:5} steps: {memory}, open files {files}"
                )
    result["met"] = all(row["met"] for parts in result.values() for row in parts.values())
    print_result(result, args.json)
    return int(not result["met"])


if __name__ == "__main__":
    sys.exit(main())
