"""How much faster LFFD's int8 file is, and what detection costs beside the network.

Claims measured at 640 x 480, as ratios of medians of interleaved calls:

* the int8 file in OpenVINO is at least three times as fast as PyTorch's fp32, channels last, on a
  processor with AVX-512 VNNI (17L4S and 25L8S);
* ``FaceDetector.detect``, from an image in memory to boxes, takes at most 1.15 times the network's
  forward pass (25L8S). These two take turns by themselves: between other runtimes' allocations the
  C library returns the top of the heap after every image, and detection asks for it page by page.

Weights are random, which changes neither; the score threshold leaves 200 candidates to suppress.
``--clock cpu`` counts the process's own seconds, which a machine with other work does not stretch;
with several threads it counts their waiting for each other as well.

    python benchmarks/lffd_runtimes.py [--threads 2] [--clock wall] [--json PATH]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lffd_d2  # isort: skip  (patches Detectron2 before its first import)

import cv2
import numpy as np
import torch
from detectron2.modeling import build_model

from face_d2.analysis.benchmark.routes import file_routes, torch_routes
from face_d2.analysis.benchmark.timing import medians
from face_d2.cli.common import print_result
from face_d2.config import load_config
from face_d2.export.onnx_file import export_onnx
from face_d2.export.quantize import write_int8
from face_d2.ops.resize import SizeRule
from face_d2.predictor.api import FaceDetector

HEIGHT, WIDTH, CANDIDATES = 480, 640, 200
BASE = "PyTorch fp32 channels-last"
ROWS = (BASE, "PyTorch bf16 channels-last", "ONNX Runtime fp32", "ONNX Runtime int8")
ROWS += ("OpenVINO fp32", "OpenVINO int8")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def picture() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def threshold(model: lffd_d2.LFFD, image: np.ndarray) -> float:
    """The score that the 200 best locations exceed."""
    batch = model.preprocess_image([{"image": torch.from_numpy(image).permute(2, 0, 1)}])
    with torch.no_grad():
        scores = torch.cat([m.flatten() for m in model.forward_maps(batch.tensor)[::2]])
    return float(scores.topk(CANDIDATES + 1).values[-1])


def functions(variant: str, threads: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """What is timed, by row and "network" or "end to end"."""
    cfg = load_config(f"lffd/lffd_{variant}.yaml", ["MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    image = picture()
    model.test_score_thresh = threshold(model, image)
    checkpoint, noise = folder / "weights.pth", folder / "noise.png"
    torch.save({"model": model.state_dict()}, checkpoint)
    cv2.imwrite(str(noise), image)
    files = {precision: folder / f"{variant}_{precision}.onnx" for precision in ("fp32", "int8")}
    export_onnx(
        model, files["fp32"], size_rule=SizeRule(), config=f"lffd_{variant}", weights=checkpoint
    )
    float_file = FaceDetector.from_onnx(files["fp32"], runtime="onnxruntime", threads=threads)
    write_int8(float_file, files["fp32"], files["int8"], [noise])
    routes = [*torch_routes(model, cfg, ["cpu"]), *file_routes(files, threads, None)]
    chosen = {}
    for route in routes:
        if route.name in ROWS:
            for what, function in route.prepare(image).items():
                chosen[f"{route.name}, {what}"] = function
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=["17L4S", "25L8S"])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, help="also write the result here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {
        "size": [HEIGHT, WIDTH],
        "threads": args.threads,
        "clock": args.clock,
        "load_before": os.getloadavg()[0],
    }
    for variant in args.variants:
        with tempfile.TemporaryDirectory() as folder:
            timed = functions(variant, args.threads, Path(folder))
            clock = CLOCKS[args.clock]
            pair = {name: call for name, call in timed.items() if name.startswith(BASE)}
            alone, found = (
                medians(calls, rounds=args.rounds, clock=clock) for calls in (pair, timed)
            )
        base = found[f"{BASE}, network"]
        row = {
            "milliseconds": found,
            "int8_speedup": base / found["OpenVINO int8, network"],
            "alone": alone,
            "detect_over_forward": alone[f"{BASE}, end to end"] / alone[f"{BASE}, network"],
        }
        result[variant] = row
        print(f"{variant}, {WIDTH} x {HEIGHT}, {args.threads} thread(s), {args.clock} time")
        for name, value in found.items():
            print(f"  {name:40} {value:8.1f} ms  {base / value:5.2f} x")
        print(f"  int8 in OpenVINO: {row['int8_speedup']:.2f} x as fast (goal 3)")
        print(f"  detect / forward: {row['detect_over_forward']:.3f} (goal at most 1.15)")
    result["load_after"] = os.getloadavg()[0]
    print_result(result, args.json)


if __name__ == "__main__":
    main()
