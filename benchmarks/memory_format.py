"""Training steps and inference on a CPU, with channels first and channels last in memory.

Both copies of a network take turns on the same batches, and the times are those of the process.

Claim: with channels last (``torch.channels_last``), which the trainer and the predictor use on
CPUs, steps of DF2S2 and images of both detectors take at most 0.9 of the time, and
steps of LFFD do not get slower.

    python benchmarks/memory_format.py [--rounds N] [--threads N] [--json PATH]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import df2s2_d2  # isort: skip  (patches Detectron2 before its first import)

import torch
from detectron2.utils.events import EventStorage

from face_d2.analysis.cost import build_random, noise_batch
from face_d2.cli.common import print_result
from face_d2.config import load_config

CONFIGS = (
    "df2s2/df2s2_lite0_FFP_recommended.yaml",
    "quick/df2s2_real.yaml",
    "lffd/lffd_20L5S_recommended.yaml",
)
FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last}


def measure(config: str, args: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step and of one image, with both layouts, and their ratios."""
    overrides = ["MODEL.DEVICE", "cpu", "MODEL.TIMM.WEIGHTS", "", "SEED", 0]
    model = build_random(load_config(config, overrides))
    models = {name: copy.deepcopy(model).to(memory_format=f) for name, f in FORMATS.items()}
    batch = noise_batch(args.batch, args.side)
    image = batch[0]["image"][None].float()
    times: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, work: Callable[[], Any]) -> None:
        begun = time.process_time()
        work()
        times[name].append(time.process_time() - begun)

    def step(network: torch.nn.Module) -> None:
        sum(network(batch).values()).backward()
        network.zero_grad()

    def detect(network: torch.nn.Module) -> None:
        with torch.inference_mode():
            network.forward_maps(image)

    with EventStorage():
        for _ in range(args.rounds + 1):
            for name, network in models.items():
                timed(f"step_{name}", lambda n=network: step(n))
                timed(f"image_{name}", lambda n=network: detect(n))
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    ratios = {
        f"{work}_ratio": median[f"{work}_last"] / median[f"{work}_first"]
        for work in ("step", "image")
    }
    return {**median, **ratios}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4, help="images of a step")
    parser.add_argument("--side", type=int, default=256, help="of the images")
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--json", type=Path, help="also write the result here")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    result = {config: measure(config, args) for config in args.configs}
    for config, found in result.items():
        print(f"{config}: step {found['step_ratio']:.2f}, image {found['image_ratio']:.2f}")
    print_result(result, args.json)


if __name__ == "__main__":
    main()
