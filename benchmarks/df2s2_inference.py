"""What DF2S2 and its segmentation branch cost at inference, beside the RetinaNet baseline.

Claims measured, on one image of random pixels (weights do not change the cost of the network):

* against RetinaNet with the same levels, anchors and input: at most 0.60 x the operations in the
  heads, 0.65 x in all and 0.75 x the time of ``forward_maps``, in interleaved medians;
* a DF2S2 with its segmentation branch and one without run the same list of operators, need the same
  operations and give the same maps; the 95 % interval of their time ratio contains 1.

    python benchmarks/df2s2_inference.py [--size H W] [--pairs N] [--device cuda] [--json PATH]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import df2s2_d2  # isort: skip  (patches Detectron2 before its first import)

import torch
from detectron2.modeling import build_model
from scipy.stats import t as student
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from face_d2.analysis.cost import count_flops
from face_d2.cli.common import print_result
from face_d2.config import load_config

GOALS = {"flops_heads_ratio": 0.60, "flops_ratio": 0.65, "time_ratio": 0.75}


class OperatorList(TorchDispatchMode):
    """Records every operator that runs, with the shapes of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        shapes = [tuple(a.shape) if isinstance(a, Tensor) else "" for a in args]
        self.operators.append(f"{function} {shapes}")
        return function(*args, **(kwargs or {}))


def build(config: str, device: str, *overrides: object) -> df2s2_d2.DF2S2:
    """The model of a shipped config in evaluation mode, with random weights."""
    cfg = load_config(config, ["MODEL.DEVICE", device, *overrides])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    return model.to(memory_format=torch.channels_last)


def parts(model: df2s2_d2.DF2S2, size: tuple[int, int]) -> dict[str, float]:
    """Multiply-adds of the network's parts, in units of 10^9."""
    counts = {name: count / 1e9 for name, count in count_flops(model, size).items()}
    resnet = counts["backbone.bottom_up"]
    return {
        "resnet": resnet,
        "pyramid": counts["backbone"] - resnet,
        "heads": counts["head"],
        "all": counts[""],
    }


def timed_pairs(
    first: Callable[[], Any], second: Callable[[], Any], pairs: int, device: str
) -> list[tuple[float, float]]:
    """Seconds of both functions, one after the other, the order turned round every time."""

    def seconds(function: Callable[[], Any]) -> float:
        begun = time.perf_counter()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    times = []
    for turn in range(-3, pairs):  # three to warm up
        if turn % 2:
            b, a = seconds(second), seconds(first)
        else:
            a, b = seconds(first), seconds(second)
        if turn >= 0:
            times.append((a, b))
    return times


def ratio_interval(times: list[tuple[float, float]]) -> dict[str, Any]:
    """Geometric mean of the ratios first / second of the pairs and its 95 % interval."""
    logs = [math.log(a / b) for a, b in times]
    mean = statistics.mean(logs)
    reach = float(student.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / len(logs) ** 0.5
    return {
        "ratio": math.exp(mean),
        "interval_95": [math.exp(mean - reach), math.exp(mean + reach)],
    }


@torch.no_grad()
def compare_with_baseline(size: tuple[int, int], pairs: int, device: str) -> dict[str, Any]:
    """DF2S2 and RetinaNet on one input."""
    ours = build("df2s2/df2s2_R50_FFP.yaml", device)
    baseline = build("baseline/retinanet_R50_FPN.yaml", device)
    flops = {"DF2S2": parts(ours, size), "RetinaNet": parts(baseline, size)}
    image = torch.randn(1, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    times = timed_pairs(
        lambda: ours.forward_maps(image), lambda: baseline.forward_maps(image), pairs, device
    )
    medians = [statistics.median(column) for column in zip(*times)]
    return {
        "gflops": flops,
        "ms": {"DF2S2": 1e3 * medians[0], "RetinaNet": 1e3 * medians[1]},
        "flops_heads_ratio": flops["DF2S2"]["heads"] / flops["RetinaNet"]["heads"],
        "flops_ratio": flops["DF2S2"]["all"] / flops["RetinaNet"]["all"],
        "time_ratio": medians[0] / medians[1],
        "time_pairs": ratio_interval(times),
    }


@torch.no_grad()
def compare_segmentation(size: tuple[int, int], pairs: int, device: str) -> dict[str, Any]:
    """The same DF2S2 with and without its segmentation branch."""
    with_branch = build("df2s2/df2s2_R50_FFP.yaml", device)
    without = build("df2s2/df2s2_R50_FFP.yaml", device, "MODEL.DF2S2.SEG_ENABLED", False)
    left_over = without.load_state_dict(with_branch.state_dict(), strict=False)
    image = torch.randn(1, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    outputs, operators = [], []
    for model in (with_branch, without):
        with OperatorList() as recorded:
            outputs.append(model.forward_maps(image))
        operators.append(recorded.operators)
    times = timed_pairs(
        lambda: with_branch.forward_maps(image), lambda: without.forward_maps(image), pairs, device
    )
    found = ratio_interval(times)
    low, high = found["interval_95"]
    return {
        "weights_of_the_branch": sorted(left_over.unexpected_keys),
        "operators": len(operators[0]),
        "same_operators": operators[0] == operators[1],
        "same_flops": count_flops(with_branch, size)[""] == count_flops(without, size)[""],
        "same_outputs": all(torch.equal(a, b) for a, b in zip(*outputs)),
        "pairs": pairs,
        "time_ratio": found["ratio"],
        "time_ratio_interval_95": [low, high],
        "interval_contains_1": low <= 1 <= high,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--pairs", type=int, default=60, help="interleaved pairs with and without")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved pairs with RetinaNet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="also write the result here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = tuple(args.size)
    baseline = compare_with_baseline(size, args.rounds, args.device)
    segmentation = compare_segmentation(size, args.pairs, args.device)

    on = torch.cuda.get_device_name() if args.device != "cpu" else f"CPU, {args.threads} thread(s)"
    print(f"{size[1]} x {size[0]}, {on}; 10^9 multiply-adds")
    for name, counts in baseline["gflops"].items():
        row = ", ".join(f"{part} {value:.1f}" for part, value in counts.items())
        print(f"  {name:9}  {row}; {baseline['ms'][name]:.1f} ms")
    for key, goal in GOALS.items():
        print(f"  {key} {baseline[key]:.3f} (goal at most {goal})")
    low, high = segmentation["time_ratio_interval_95"]
    print(
        f"  segmentation branch at inference: operators the same {segmentation['same_operators']}, "
        f"operations {segmentation['same_flops']}, outputs {segmentation['same_outputs']}; time "
        f"ratio {segmentation['time_ratio']:.4f} [{low:.4f}, {high:.4f}] over {args.pairs} pairs"
    )
    result = {"size": list(size), "device": on, **baseline, "segmentation": segmentation}
    print_result(result, args.json)


if __name__ == "__main__":
    main()
