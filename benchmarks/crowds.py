"""What a crowd costs: labels of 2,000 faces, suppression of 50,000 candidates.

Claims measured:

* labels of 2,000 faces at 800 x 1333 (DF2S2: anchors and masks) and 640 x 640 (LFFD 25L8S: all
  branches) take at most 1 s and 300 MB more than the process had; from 500 to 2,000 faces the time
  grows no faster than the faces do;
* the detections of 50,000 candidates, however they lie, take at most 5 s and 300 MB more, with the
  settings of the shipped configs.

Times are interleaved medians of the CPU time of all threads together, which neighbors on the
machine change less than a clock; every memory figure is from a process of its own (Linux).

    python benchmarks/crowds.py [--threads 1] [--rounds 9] [--json PATH]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import df2s2_d2  # isort: skip  (patches Detectron2 before its first import)

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torchvision.ops import nms

import lffd_d2
from df2s2_d2.anchors import AnchorGrid
from df2s2_d2.segmentation import box_mask
from face_d2.cli.common import print_result
from face_d2.config import load_config
from face_d2.modeling.nms import first_kept, suppress

FACES = (500, 1000, 2000)
SIZES = {"df2s2": (800, 1333), "lffd": (640, 640)}
CANDIDATES = 50_000
#: Side in pixels of the square that the candidates are spread over: all on one another, or hardly.
SPREADS = {"dense": 600.0, "sparse": 40_000.0}
GOALS = {"label_seconds": 1.0, "label_mb": 300.0, "nms_seconds": 5.0, "nms_mb": 300.0}

_CONFIGS = {"df2s2": "df2s2/df2s2_R50_FFP.yaml", "lffd": "lffd/lffd_25L8S.yaml"}
_TURNS = 3  # of the interleaving that warm up


def crowd(count: int, size: tuple[int, int]) -> Tensor:
    """(count, 4) XYXY faces of 8 to 128 pixels, as many in every octave."""
    generator = torch.Generator().manual_seed(0)
    center = torch.rand(count, 2, generator=generator) * torch.tensor([size[1], size[0]])
    half = 4 * 2 ** (4 * torch.rand(count, 1, generator=generator)) * torch.tensor([0.8, 1.0])
    return torch.cat([center - half, center + half], dim=1)


def df2s2_labels(model: df2s2_d2.DF2S2, boxes: Tensor, size: tuple[int, int]) -> None:
    sizes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in model.strides]
    anchors = model.anchor_generator
    grid = AnchorGrid.build(list(anchors.cell_anchors), model.strides, anchors.offset, sizes)
    found = model.matcher(grid, boxes, torch.zeros(len(boxes), dtype=torch.bool))
    for level, (stride, level_size) in enumerate(zip(model.strides, sizes)):
        box_mask(boxes[found.on_level[:, level]], stride, level_size)


def lffd_labels(model: lffd_d2.LFFD, boxes: Tensor, size: tuple[int, int]) -> None:
    model.label(model.backbone.variant.map_sizes(*size), [Instances(size, gt_boxes=Boxes(boxes))])


def candidates(spread: str) -> tuple[Tensor, Tensor]:
    """Boxes of 8 to 32 pixels and their scores."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(CANDIDATES, 2, generator=generator) * SPREADS[spread]
    side = 8 + 24 * torch.rand(CANDIDATES, 1, generator=generator)
    return torch.cat([corner, corner + side], dim=1), torch.rand(CANDIDATES, generator=generator)


def suppression(detector: str, model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """What the detector does with its candidates."""
    if detector == "df2s2":
        rule = partial(nms, iou_threshold=model.test_nms_thresh)
    else:
        rule = partial(suppress, nms_type=model.test_nms_type, threshold=model.test_nms_thresh)
    return lambda boxes, scores: first_kept(rule, boxes, scores, model.max_detections_per_image)


def jobs(detector: str) -> dict[str, Callable[[], Any]]:
    """Everything that is measured of a detector, by name."""
    cfg = load_config(_CONFIGS[detector], ["MODEL.DEVICE", "cpu"])
    model, size = build_model(cfg), SIZES[detector]
    label = df2s2_labels if detector == "df2s2" else lffd_labels
    found: dict[str, Callable[[], Any]] = {
        f"labels_{count}": partial(label, model, crowd(count, size), size) for count in FACES
    }
    keep = suppression(detector, model)
    for spread in SPREADS:
        found[f"nms_{spread}"] = partial(keep, *candidates(spread))
    return found


def medians(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each; they take turns, so that all see the machine alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(-_TURNS, rounds):
        for name, function in functions.items():
            begun = time.process_time()
            function()
            if turn >= 0:
                times[name].append(time.process_time() - begun)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mb(detector: str, name: str, threads: int) -> float:
    """Memory that one job takes beyond what its process had, in 10^6 bytes."""
    torch.set_num_threads(threads)
    job = jobs(detector)[name]
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = resident("VmRSS")
    job()
    return (resident("VmHWM") - before) / 1e6


def resident(field: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (most so far) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def measure(detector: str, rounds: int, threads: int) -> dict[str, Any]:
    functions = jobs(detector)
    seconds = medians({k: f for k, f in functions.items() if k.startswith("labels")}, rounds)
    for name in functions:
        if name.startswith("nms"):
            seconds |= medians({name: functions[name]}, 3)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        arguments = [(detector, name, threads) for name in functions]
        memory = dict(zip(functions, pool.starmap(peak_mb, arguments, chunksize=1)))
    few, many = seconds[f"labels_{FACES[0]}"], seconds[f"labels_{FACES[-1]}"]
    return {
        "seconds": seconds,
        "mb": memory,
        # Time ~ faces ** exponent: 1 is linear, below 1 a part does not depend on the faces.
        "label_exponent": math.log(many / few) / math.log(FACES[-1] / FACES[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the result here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"threads": args.threads, "candidates": CANDIDATES, "goals": GOALS}
    met = True
    for detector, (height, width) in SIZES.items():
        result[detector] = found = measure(detector, args.rounds, args.threads)
        print(f"{detector}, {height} x {width}, {args.threads} threads")
        for name, seconds in found["seconds"].items():
            print(f"  {name:12} {seconds:8.4f} s  {found['mb'][name]:7.1f} MB more")
            kind = "label" if name.startswith("label") else "nms"
            met &= seconds <= GOALS[f"{kind}_seconds"] and found["mb"][name] <= GOALS[f"{kind}_mb"]
        print(f"  label time ~ faces ^ {found['label_exponent']:.2f}")
        met &= found["label_exponent"] <= 1.1
    result["met"] = met
    print_result(result, args.json)


if __name__ == "__main__":
    main()
