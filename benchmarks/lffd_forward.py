"""How near LFFD's forward pass comes to the speed of its convolutions, and what labels cost.

Claims measured, each as the ratio of interleaved medians on this machine:

* a forward pass at 640 x 480 (fp32, channels last, 2 threads) reaches at least 0.80 of the rate, in
  floating-point operations per second, of a lone 3x3 64 -> 64 convolution on the first stage's map;
* bf16 is at least 1.6 times as fast as fp32 where the CPU computes in it;
* labels and losses take under 10 % of a training step.

    python benchmarks/lffd_forward.py [--variant 25L8S] [--json PATH]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lffd_d2  # isort: skip  (patches Detectron2 before its first import)

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from face_d2.cli.common import print_result
from face_d2.config import load_config

HEIGHT, WIDTH = 480, 640


def interleaved_medians(
    functions: dict[str, Callable[[], Any]], rounds: int, warm_up: int = 3
) -> dict[str, float]:
    """Median seconds of each function; they take turns, so that all see the machine alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warm_up + rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def flops(function: Callable[[], Any]) -> int:
    """Floating-point operations of its convolutions, two per multiply-add."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def build(variant: str) -> lffd_d2.LFFD:
    cfg = load_config(f"lffd/lffd_{variant}.yaml", ["MODEL.DEVICE", "cpu"])
    return build_model(cfg).to(memory_format=torch.channels_last)


def measure_forward(variant: str, rounds: int) -> dict[str, Any]:
    """Forward pass and lone convolution, in fp32 and, where the CPU has it, bf16."""
    side = build(variant).backbone.variant.map_sizes(HEIGHT, WIDTH)[0]
    image = torch.randn(1, 3, HEIGHT, WIDTH)
    feature = torch.randn(1, 64, *side)
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()

    functions: dict[str, Callable[[], Any]] = {}
    for dtype in [torch.float32] + ([torch.bfloat16] if bf16 else []):
        name = str(dtype).removeprefix("torch.")
        net = build(variant).eval().to(dtype)
        lone = nn.Conv2d(64, 64, 3, padding=1).to(dtype=dtype, memory_format=torch.channels_last)
        x = image.to(dtype=dtype, memory_format=torch.channels_last)
        f = feature.to(dtype=dtype, memory_format=torch.channels_last)
        functions[f"forward_{name}"] = lambda net=net, x=x: net.forward_maps(x)
        functions[f"conv_{name}"] = lambda lone=lone, f=f: lone(f)
    with torch.no_grad():
        operations = [flops(functions[f"{name}_float32"]) for name in ("forward", "conv")]
        seconds = interleaved_medians(functions, rounds)
    rates = [o / seconds[f"{n}_float32"] for o, n in zip(operations, ("forward", "conv"))]
    return {
        "seconds": seconds,
        "forward_gflop": operations[0] / 1e9,
        "conv_map": list(side),
        "forward_gflop_per_second": rates[0] / 1e9,
        "conv_gflop_per_second": rates[1] / 1e9,
        "rate_ratio": rates[0] / rates[1],
        "bf16_speedup": (
            seconds["forward_float32"] / seconds["forward_bfloat16"] if bf16 else None
        ),
    }


def random_faces(count: int, size: int, generator: torch.Generator) -> Instances:
    corners = torch.rand(count, 2, generator=generator) * size
    sides = 8 * (size / 16) ** torch.rand(count, 1, generator=generator)
    faces = Instances((size, size))
    faces.gt_boxes = Boxes(torch.cat([corners, corners + sides], dim=1))
    faces.gt_ignore = torch.zeros(count, dtype=torch.bool)
    return faces


def measure_training(variant: str, rounds: int, batch: int, faces: int) -> dict[str, Any]:
    """A whole training step, and its labels and losses alone (forward and backward)."""
    model = build(variant).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    size = 640
    pixels = torch.randn(batch, 3, size, size, generator=generator)
    images = ImageList(pixels.contiguous(memory_format=torch.channels_last), [(size, size)] * batch)
    targets = [random_faces(faces, size, generator) for _ in range(batch)]
    with torch.no_grad():
        maps = list(model.head(model.backbone(images.tensor)).values())

    def step() -> None:
        optimizer.zero_grad()
        sum(model.losses(images, targets).values()).backward()
        optimizer.step()

    def labels_and_losses() -> None:
        logits, offsets = ([m[i].detach().requires_grad_() for m in maps] for i in (0, 1))
        labels = model.label([tuple(m.shape[-2:]) for m in logits], targets)
        score, box = model.loss(logits, offsets, labels)
        (score.sum() + box.sum()).backward()

    def only_labels() -> list[Any]:
        return model.label([tuple(m.shape[-2:]) for m, _ in maps], targets)

    with EventStorage():
        seconds = interleaved_medians(
            {"step": step, "labels_and_losses": labels_and_losses, "labels": only_labels},
            rounds,
            warm_up=1,
        )
    return {
        "seconds": seconds,
        "batch": batch,
        "faces_per_image": faces,
        "labels_and_losses_share": seconds["labels_and_losses"] / seconds["step"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="25L8S")
    parser.add_argument("--rounds", type=int, default=15, help="timings per function")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4, help="images of a training step")
    parser.add_argument("--faces", type=int, default=20, help="faces per training image")
    parser.add_argument("--json", type=Path, help="also write the result here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    forward = measure_forward(args.variant, args.rounds)
    training = measure_training(args.variant, max(args.rounds // 3, 3), args.batch, args.faces)
    result = {
        "variant": args.variant,
        "threads": args.threads,
        "input": [HEIGHT, WIDTH],
        "forward": forward,
        "training": training,
    }
    print(f"{args.variant}, {WIDTH} x {HEIGHT}, {args.threads} threads, channels last")
    print(f"  forward  {forward['seconds']['forward_float32'] * 1e3:8.1f} ms fp32")
    print(
        f"  rate     {forward['forward_gflop_per_second']:8.1f} GFLOP/s, lone convolution "
        f"{forward['conv_gflop_per_second']:.1f}: ratio {forward['rate_ratio']:.2f} (goal 0.80)"
    )
    if forward["bf16_speedup"] is None:
        print("  bf16     not computed by this CPU")
    else:
        print(f"  bf16     {forward['bf16_speedup']:8.2f} x as fast as fp32 (goal 1.6)")
    print(
        f"  labels and losses {training['labels_and_losses_share'] * 100:.1f} % of a training step "
        "(goal below 10)"
    )
    print_result(result, args.json)


if __name__ == "__main__":
    main()
