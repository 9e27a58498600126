"""Where the time of a training step goes, DF2S2 beside the RetinaNet baseline, and loading.

Measured, on the images of ``DATASETS.TRAIN``:

* a step's forward pass (with labels and losses), backward pass and optimizer, in medians of steps
  that both models take in turns, on the same batches; labels alone (matching and masks; a part of
  the forward pass); loading of the batch in the same process. On a CPU in seconds of the process;
* images a second of the training loader, with several numbers of worker processes, for the mappers
  of both detectors. Workers are processes: with fewer cores than workers they share them, so what
  a core loads in a second of its own time stands beside it.

Claim: four workers load faster than the steps consume.

    python benchmarks/train_step.py [--pairs quick full] [--device cuda --precision bfloat16]
        [--workers 0 1 2 4] [--json PATH] [KEY VALUE ...]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import df2s2_d2  # isort: skip  (patches Detectron2 before its first import)

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from torch import nn

from df2s2_d2.anchors import AnchorGrid
from df2s2_d2.segmentation import segmentation_targets
from face_d2.analysis.cost import build_random
from face_d2.cli.common import print_result
from face_d2.config import load_config
from face_d2.engine.trainer import FaceTrainer
from face_d2.utils.processor import usable_cores

#: DF2S2 and the baseline: small ones for a CPU, and those of arXiv 1811.08557, section 3.4.
PAIRS = {
    "quick": ("quick/df2s2_real.yaml", "quick/retinanet_real.yaml"),
    "full": ("df2s2/df2s2_R50_FFP.yaml", "baseline/retinanet_R50_FPN.yaml"),
}
LOADED = (
    "quick/df2s2_real.yaml",
    "df2s2/df2s2_R50_FFP.yaml",
    "quick/lffd_real.yaml",
    "lffd/lffd_25L8S.yaml",
)
PARTS = ("labels", "forward", "backward", "optimizer", "step")


def config(name: str, args: argparse.Namespace, *overrides: object) -> CfgNode:
    """A shipped config with the command line's overrides; its learning rate moves no weight."""
    cfg = load_config(name)
    fixed = ("MODEL.DEVICE", args.device, "SOLVER.BASE_LR", 1e-9, "SEED", 0)
    cfg.merge_from_list([*fixed, *overrides, *args.opts])
    return cfg


def labels_of(model: df2s2_d2.DF2S2, targets: Sequence[Instances], side: int) -> None:
    """What a step computes from the faces alone: matched anchors and, with the branch, masks."""
    sizes = [(-(-side // stride),) * 2 for stride in model.strides]
    generator = model.anchor_generator
    grid = AnchorGrid.build(list(generator.cell_anchors), model.strides, generator.offset, sizes)
    boxes = [target.gt_boxes.tensor for target in targets]
    ignore = [target.gt_ignore for target in targets]
    matches = model.matcher.label_batch(grid, boxes, ignore)
    if model.head.segmentation:
        segmentation_targets(boxes, ignore, [m.on_level for m in matches], model.strides, sizes)


class Stopwatch:
    """Collects seconds by name.

    On a CPU those of the process, all threads together: what else runs there does not count. A GPU
    is waited for until it has done what it was given.
    """

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._on_gpu = device != "cpu"

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        begun = self._now()
        result = work()
        self.seconds[name].append(self._now() - begun)
        return result

    def medians(self, skip: int) -> dict[str, float]:
        """Milliseconds, without the first ``skip`` of each."""
        return {k: 1e3 * statistics.median(v[skip:]) for k, v in self.seconds.items()}

    def _now(self) -> float:
        if not self._on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def measure_steps(pair: str, args: argparse.Namespace) -> dict[str, Any]:
    """Steps of DF2S2 and the baseline in turns."""
    names = dict(zip(("DF2S2", "RetinaNet"), PAIRS[pair]))
    batch_size = ("SOLVER.IMS_PER_BATCH", args.batch) if args.batch else ()
    cfgs = {name: config(file, args, *batch_size) for name, file in names.items()}
    loaded = cfgs["DF2S2"].clone()
    loaded.DATALOADER.NUM_WORKERS = 0
    batches = iter(FaceTrainer.build_train_loader(loaded))
    models = {name: build_random(cfg) for name, cfg in cfgs.items()}
    optimizers = {name: build_optimizer(cfg, models[name]) for name, cfg in cfgs.items()}
    precision = getattr(torch, args.precision)
    loading = Stopwatch("cpu")
    watches = {name: Stopwatch(args.device) for name in names}

    def forward(model: nn.Module, batch: list[dict[str, Any]]) -> torch.Tensor:
        kind, enabled = torch.device(args.device).type, precision != torch.float32
        with torch.autocast(kind, precision if enabled else None, enabled=enabled):
            return sum(model(batch).values())

    def step(name: str, batch: list[dict[str, Any]]) -> None:
        watch, optimizer = watches[name], optimizers[name]
        loss = watch("forward", lambda: forward(models[name], batch))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{names[name]}: the loss is {float(loss)}; times of it lie.")
        optimizer.zero_grad()
        watch("backward", loss.backward)
        watch("optimizer", optimizer.step)

    side = cfgs["DF2S2"].INPUT.FACE_CROP.SIZE
    with EventStorage():
        for _ in range(args.rounds + 1):
            batch = loading("loading", lambda: next(batches))
            targets = [item["instances"].to(args.device) for item in batch]
            for name in names:
                watches[name]("labels", lambda n=name, t=targets: labels_of(models[n], t, side))
                watches[name]("step", lambda n=name, b=batch: step(n, b))
    times = {name: {**watch.medians(1), **loading.medians(1)} for name, watch in watches.items()}
    images = len(batch)
    return {
        "configs": names,
        "batch": images,
        "crop": side,
        "ms": times,
        "step_ratio": times["DF2S2"]["step"] / times["RetinaNet"]["step"],
        "labels_share": {name: t["labels"] / t["step"] for name, t in times.items()},
        "images_per_second": {name: 1e3 * images / t["step"] for name, t in times.items()},
    }


def measure_loading(file: str, workers: int, args: argparse.Namespace) -> dict[str, float]:
    """The training loader alone, and what its processes took."""
    cfg = config(file, args, "SOLVER.IMS_PER_BATCH", 8, "DATALOADER.NUM_WORKERS", workers)
    who = resource.RUSAGE_CHILDREN if workers else resource.RUSAGE_SELF
    before = resource.getrusage(who)
    batches = iter(FaceTrainer.build_train_loader(cfg))
    warm_up = 2 + 3 * workers  # workers are ahead by two batches each
    for _ in range(warm_up):
        next(batches)
    begun = time.perf_counter()
    images = 0
    while images < args.images:
        images += len(next(batches))
    seconds = time.perf_counter() - begun
    del batches  # its workers end, and their time is known
    after = resource.getrusage(who)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    ahead = 2 * workers * 8 / 2  # batches under way when it ends, half done on average
    return {
        "images_per_second": images / seconds,
        "images_per_core_second": (images + warm_up * 8 + ahead) / spent,
    }


def per_core(found: dict[str, dict[str, float]]) -> float:
    """Images that one core loads in a second of its own time: the median over worker counts."""
    return statistics.median(row["images_per_core_second"] for row in found.values())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=["quick"])
    parser.add_argument("--rounds", type=int, default=15, help="steps of each model")
    parser.add_argument("--batch", type=int, help="images of a step (the config's)")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2, 4])
    parser.add_argument("--images", type=int, default=400, help="loaded per number of workers")
    parser.add_argument("--threads", type=int, default=1, help="of the steps, on a CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16", "float16"], default="float32"
    )
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides for every config")
    args = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(args.threads)

    steps = {pair: measure_steps(pair, args) for pair in args.pairs}
    loading = {
        file: {str(n): measure_loading(file, n, args) for n in args.workers}
        for file in LOADED
        if args.workers
    }
    on = torch.cuda.get_device_name() if args.device != "cpu" else f"CPU, {args.threads} thread(s)"
    result = {
        "device": on,
        "precision": args.precision,
        "cores": usable_cores(),
        "torch": torch.__version__,
        "steps": steps,
        "loading": loading,
    }
    report(result)
    print_result(result, args.json)


def report(result: dict[str, Any]) -> None:
    """Prints the measurements."""
    print(f"{result['device']}, {result['precision']}, {result['cores']} core(s)")
    for pair, found in result["steps"].items():
        print(f"{pair}: {found['batch']} images of {found['crop']} x {found['crop']}, ms")
        for name, times in found["ms"].items():
            row = ", ".join(f"{part} {times[part]:.1f}" for part in (*PARTS, "loading"))
            print(f"  {name:9}  {row}; {found['images_per_second'][name]:.1f} images/s")
        print(f"  step of DF2S2 / of RetinaNet {found['step_ratio']:.2f}")
    for file, rows in result["loading"].items():
        loaded = per_core(rows)
        row = ", ".join(f"{n}: {r['images_per_second']:.0f}" for n, r in rows.items())
        print(f"loading {file}: images/s by workers {row}; {loaded:.0f} a core of its time")
    for pair, found in result["steps"].items():
        rows = result["loading"].get(PAIRS[pair][0])
        if rows:
            needed = max(found["images_per_second"].values()) / per_core(rows)
            print(f"loading keeps up with the {pair} steps from {needed:.2f} cores on")


if __name__ == "__main__":
    main()
