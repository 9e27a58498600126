"""What int8 files of 7- and 8-bit weights lose, and how fast they are, on several processors.

    python benchmarks/int8_processors.py --config-file lffd/lffd_17L4S.yaml --weights head.pth \\
        --calibration WIDER_train/images --images WIDER_val/images [--ground-truth PATH] \\
        --folder output/int8_processors

Smaller processors than this one are shown by ``tools/qa/limit_processor.c``, which hides features
from the runtimes (Linux on x86-64, a C compiler and objdump). The instructions
then run at this machine's speed: ratios within a processor mean something, times across do not say
what an older machine needs. For each processor, runtime and file:

* the probe of ``face_d2/predictor/int8_probe.py``: whether sums of int8 saturate;
* AP of the photographs, hard and medium, against the boxes of the float file in ONNX Runtime with a
  score of at least 0.5, and against ``--ground-truth``. Value ranges come from ``--calibration``;
* the maximum difference between the scores on the first photograph and those under the first of
  ``--limits``;
* the time of the network at 640 x 480, medians of interleaved calls.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from face_d2.analysis.benchmark.timing import medians
from face_d2.cli.common import print_result
from face_d2.config import load_config
from face_d2.evaluation.wider_face.protocol import widerface_ap
from face_d2.export.accuracy import find_faces, own_faces
from face_d2.export.onnx_file import export_onnx
from face_d2.export.quantize import quantize, write_int8
from face_d2.predictor.api import FaceDetector
from face_d2.predictor.images import load_image
from face_d2.predictor.int8_probe import int8_sums_saturate
from face_d2.predictor.runtimes import RUNTIMES
from face_d2.predictor.sources import find_inputs
from face_d2.predictor.torch_backend import build_detector, configured_size_rule
from face_d2.utils.files import write_text

#: By name: the whole processor ("none"), then limits of limit_processor.c.
LIMITS = ("none", "avx512vnni", "avxvnni", "avx512", "avx2")
FORMS = ("fp32", "int8_7", "int8_8")
HEIGHT, WIDTH = 480, 640
LEAST_SCORE = 0.02


def pictures(folder: str, most: int | None) -> list[str]:
    """Evenly taken where there are more than ``most``."""
    files = [source.file for source in find_inputs([folder]).sources if source.kind == "image"]
    if most is not None and len(files) > most:
        files = [files[round(k)] for k in np.linspace(0, len(files) - 1, most)]
    return files


def write_files(options: argparse.Namespace) -> None:
    """FORM.onnx of the detector, those that are not there yet.

    The 7-bit file is the one that ``tools/export_onnx.py --int8`` writes; the 8-bit file keeps the
    same convolutions in float.
    """
    files = {form: options.folder / f"{form}.onnx" for form in FORMS}
    if not files["fp32"].exists():
        cfg = load_config(options.config_file, [*options.opts, "MODEL.DEVICE", "cpu"])
        export_onnx(
            build_detector(cfg, options.weights),
            files["fp32"],
            size_rule=configured_size_rule(cfg),
            config=Path(options.config_file).stem,
            weights=options.weights,
        )
    images = pictures(options.calibration, 100)
    if not files["int8_7"].exists():
        done = quantize(files["fp32"], files["int8_7"], images, max_loss=options.max_loss)
        print(f"{files['int8_7']}: {done}", file=sys.stderr, flush=True)
    if not files["int8_8"].exists():
        metadata = {entry.key: entry.value for entry in onnx.load(files["int8_7"]).metadata_props}
        kept_float = [name for name in metadata["float_layers"].split(", ") if name]
        detector = FaceDetector.from_onnx(files["fp32"], runtime="onnxruntime")
        write_int8(detector, files["fp32"], files["int8_8"], images, kept_float, weight_bits=8)
        print(f"{files['int8_8']}: written", file=sys.stderr, flush=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Of this process's processor, by runtime and form."""
    warnings.filterwarnings("ignore", category=RuntimeWarning, message=".*weights have 8 bits")
    images = pictures(options.images, options.most)
    detectors = {
        (runtime, form): FaceDetector.from_onnx(
            options.folder / f"{form}.onnx",
            runtime=runtime,
            threads=options.threads,
            score_threshold=LEAST_SCORE,
        )
        for runtime in RUNTIMES
        for form in FORMS
    }
    frame = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    times = medians(
        {
            f"{runtime} {form}": lambda run=detector.backend.graph.run: run(frame)
            for (runtime, form), detector in detectors.items()
        },
        rounds=options.rounds,
    )
    predictions = {}
    for (runtime, form), detector in detectors.items():
        predictions[runtime, form] = find_faces(detector, images)
        print(f"{options.limit}, {runtime}, {form}: searched", file=sys.stderr, flush=True)
    float_boxes = own_faces(predictions["onnxruntime", "fp32"])
    found: dict[str, Any] = {}
    first = load_image(images[0])[None]
    for (runtime, form), detector in detectors.items():
        scores = detector.backend.graph.run(first)[1]
        np.save(options.folder / f"{options.limit}_{runtime}_{form}.npy", scores)
        milliseconds = times[f"{runtime} {form}"]
        rows = predictions[runtime, form]
        row = {
            "float_boxes": percent(widerface_ap(rows, float_boxes, images=list(rows))),
            "milliseconds": milliseconds,
            "speedup": times["onnxruntime fp32"] / milliseconds,
        }
        if options.ground_truth:
            truth = options.ground_truth
            row["ground_truth"] = percent(widerface_ap(rows, truth, images=list(rows)))
        found.setdefault(runtime, {"saturates": int8_sums_saturate(runtime)})[form] = row
    return found


def percent(aps: Mapping[str, float]) -> dict[str, float]:
    return {name: 100 * value for name, value in aps.items()}


def limited(limit: str, options: argparse.Namespace) -> dict[str, Any]:
    """:func:`measure` in a process that sees a limited processor; what was measured is kept."""
    kept = options.folder / f"{limit}.json"
    if not kept.exists():
        environment = dict(os.environ)
        if limit != "none":
            library = options.folder / "limit_processor.so"
            tools = Path(__file__).resolve().parents[1] / "tools" / "qa"
            source = tools / "limit_processor.c"
            command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
            subprocess.run(command, check=True)
            packages = options.folder.resolve() / "packages"
            script = str(tools / "limit_packages.py")
            used = ["--packages", "numpy", "onnxruntime", "openvino"]
            subprocess.run([sys.executable, script, str(packages), *used], check=True)
            environment |= {"LIMIT_PROCESSOR": limit, "LD_PRELOAD": str(library.resolve())}
            environment["LIMITED_PACKAGES"] = str(packages)
        command = [sys.executable, __file__, *sys.argv[1:], "--limit", limit]
        subprocess.run(command, check=True, env=environment)
    return json.loads(kept.read_text())


def add_differences(result: dict[str, Any], folder: Path) -> None:
    """How far scores of the first photograph lie from those of the first limit."""
    for limit, runtimes in result["processors"].items():
        for runtime in RUNTIMES:
            for form in FORMS:
                ours, whole = (
                    np.load(folder / f"{name}_{runtime}_{form}.npy")
                    for name in (limit, result["limits"][0])
                )
                runtimes[runtime][form]["score_difference"] = float(np.abs(ours - whole).max())


def show(result: dict[str, Any]) -> None:
    """A table for people."""
    print(
        "processor    runtime      saturates  file     hard  medium  hard (truth)   speed  scores"
    )
    for limit, runtimes in result["processors"].items():
        for runtime in RUNTIMES:
            for form in FORMS:
                row = runtimes[runtime][form]
                own = row["float_boxes"]
                hard = row.get("ground_truth", {}).get("AP_hard", float("nan"))
                print(
                    f"{limit:12} {runtime:12} {runtimes[runtime]['saturates']!s:9}  {form:7} "
                    f"{own['AP_hard']:5.2f}   {own['AP_medium']:5.2f}  {hard:12.2f}   "
                    f"{row['speedup']:4.2f}x  {row['score_difference']:.1e}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True, metavar="FILE", help="or a shipped name")
    parser.add_argument("--weights", required=True, metavar="FILE")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")
    parser.add_argument("--calibration", required=True, metavar="FOLDER")
    parser.add_argument("--images", required=True, metavar="FOLDER")
    parser.add_argument(
        "--folder",
        required=True,
        type=Path,
        help="keeps files and what was measured; the same command goes on where it was stopped",
    )
    parser.add_argument("--most", type=int, help="take at most so many of the images")
    parser.add_argument("--ground-truth", type=Path, metavar="PATH")
    parser.add_argument(
        "--max-loss", type=float, default=0.5, help="of the export, on the calibration images"
    )
    parser.add_argument("--limits", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--limit", help=argparse.SUPPRESS)  # the process that measures
    options = parser.parse_args()
    if options.limit:
        found = measure(options)
        write_text(json.dumps(found), options.folder / f"{options.limit}.json")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    write_files(options)
    result: dict[str, Any] = {
        "detector": Path(options.config_file).stem,
        "images": len(pictures(options.images, options.most)),
        "threads": options.threads,
        "limits": options.limits,
        "processors": {limit: limited(limit, options) for limit in options.limits},
    }
    add_differences(result, options.folder)
    show(result)
    print_result(result, options.json)


if __name__ == "__main__":
    main()
