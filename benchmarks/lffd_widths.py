"""What a narrower LFFD loses in accuracy and gains in time, on the generated faces.

Measured for each network of ``configs/quick/lffd_synth.yaml`` with all its widths multiplied: AP on
the generated validation set in float and in int8 (OpenVINO), multiply-adds, and the time of both
forms of the network at 640 x 480, in medians of interleaved calls. Train them first:

    for n in 0.25 0.5 0.75 1; do
        python tools/train_net.py --config-file configs/quick/lffd_synth.yaml --num-gpus 0 SEED 0 \\
            $(python benchmarks/lffd_widths.py --overrides $n) OUTPUT_DIR output/widths/$n
    done
    python benchmarks/lffd_widths.py --models output/widths [--plot FILE.png] [--json PATH]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import lffd_d2  # isort: skip  (patches Detectron2 before its first import)

import cv2
import matplotlib
import torch
from detectron2.data import MetadataCatalog
from matplotlib.figure import Figure

from face_d2.analysis.benchmark.timing import medians
from face_d2.analysis.cost import FLOPS_SIZE, count_flops
from face_d2.cli.common import print_result
from face_d2.config import load_config
from face_d2.export.accuracy import average_precisions
from face_d2.export.onnx_file import export_onnx
from face_d2.export.quantize import write_int8
from face_d2.ops.resize import SizeRule
from face_d2.predictor.api import FaceDetector
from face_d2.predictor.torch_backend import build_detector
from face_d2.synthetic.dataset import synthetic_root
from face_d2.visualization.style import COLORS, STYLE, save_figure

CONFIG = "quick/lffd_synth.yaml"
HEIGHT, WIDTH = FLOPS_SIZE
FORMS = {"fp32": "float", "int8": "int8"}


def overrides(multiplier: float) -> list[Any]:
    """The config's widths, multiplied."""
    cfg = load_config(CONFIG)
    widths = [round(multiplier * width) for width in cfg.MODEL.LFFD.WIDTHS]
    branch = round(multiplier * cfg.MODEL.LFFD.BRANCH_CHANNELS)
    return ["MODEL.LFFD.WIDTHS", widths, "MODEL.LFFD.BRANCH_CHANNELS", branch]


def measure(folder: Path, place: Path, threads: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Name of a trained network's folder, its multiplier, to what was measured."""
    synthetic_root()  # drawn on first use
    sets = [MetadataCatalog.get(f"widerface_synth_{split}") for split in ("train", "val")]
    train, val = (sorted(Path(part.image_root).rglob("*.jpg")) for part in sets)
    picture = cv2.resize(cv2.imread(str(val[0])), (WIDTH, HEIGHT))
    rows: dict[str, dict[str, Any]] = {}
    timed = {}
    for weights in sorted(folder.glob("*/model_final.pth"), key=lambda p: float(p.parent.name)):
        name = weights.parent.name
        cfg = load_config(CONFIG, overrides(float(name)))
        model = build_detector(cfg, weights)
        files = {form: place / f"{name}_{form}.onnx" for form in FORMS}
        export_onnx(model, files["fp32"], size_rule=SizeRule(), config=CONFIG, weights=weights)
        write_int8(
            FaceDetector.from_onnx(files["fp32"], runtime="onnxruntime"),
            files["fp32"],
            files["int8"],
            train,
        )
        rows[name] = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "gflops": count_flops(model)[""] / 1e9,
            "ap": {},
            "milliseconds": {},
        }
        for form, file in files.items():
            detector = FaceDetector.from_onnx(
                file, runtime="openvino", threads=threads, score_threshold=0.02
            )
            rows[name]["ap"][form] = average_precisions(detector, val, sets[1].annotation_file)
            timed[f"{name} {form}"] = lambda detector=detector: detector.backend.detect([picture])
        print(f"{name}: {rows[name]['ap']}", flush=True)
    if not rows:
        raise SystemExit(f"{folder} holds no MULTIPLIER/model_final.pth; the docstring says how")
    for row, milliseconds in medians(timed, rounds=rounds).items():
        name, form = row.split()
        rows[name]["milliseconds"][form] = milliseconds
    return rows


def plot(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """AP_medium over milliseconds, a line a form, a point a network."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 3.6), layout="constrained")
        axes = figure.subplots()
        for (form, label), color in zip(FORMS.items(), COLORS):
            times = [row["milliseconds"][form] for row in rows.values()]
            aps = [row["ap"][form]["AP_medium"] for row in rows.values()]
            axes.plot(times, aps, "o-", color=color, label=f"{label}, OpenVINO")
            for name, time, ap in zip(rows, times, aps):
                axes.annotate(f"x {name}", (time, ap), xytext=(5, -11), textcoords="offset points")
        axes.set_xlabel(f"ms an image of {WIDTH} x {HEIGHT}")
        axes.set_ylabel("AP medium, generated faces")
        axes.margins(0.12)
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right")
        save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder of MULTIPLIER/model_final.pth")
    parser.add_argument("--overrides", type=float, metavar="MULTIPLIER", help="print these and end")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--plot", type=Path, help="PNG and SVG of accuracy over time")
    parser.add_argument("--json", type=Path, help="also write the result here")
    args = parser.parse_args()
    if args.overrides is not None:
        print(*(str(word).replace(" ", "") for word in overrides(args.overrides)))
        return
    if args.models is None:
        parser.error("--models is needed")
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as place:
        rows = measure(args.models, Path(place), args.threads, args.rounds)
    for name, row in rows.items():
        times = ", ".join(f"{form} {row['milliseconds'][form]:.1f} ms" for form in FORMS)
        aps = ", ".join(f"{form} {row['ap'][form]['AP_medium']:.2f}" for form in FORMS)
        print(f"x {name}: {row['gflops']:.2f} GFLOPs; {times}; AP_medium {aps}")
    result = {"size": [HEIGHT, WIDTH], "threads": args.threads, "networks": rows}
    if args.plot:
        plot(rows, args.plot)
    print_result(result, args.json)


if __name__ == "__main__":
    main()
