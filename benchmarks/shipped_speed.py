"""Times of the shipped detectors, beside those of other ONNX files, on one picture.

    python benchmarks/shipped_speed.py [--onnx yunet_n_dynamic.onnx]

From the picture in memory to its faces, in ONNX Runtime with float32; medians of interleaved calls.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import onnxruntime

from face_d2 import FaceDetector
from face_d2.analysis.benchmark.timing import Timing, interleaved
from face_d2.cli.common import print_result
from face_d2.predictor.images import load_image
from face_d2.pretrained import PRETRAINED
from face_d2.utils.processor import processor_name

PICTURE = Path(__file__).resolve().parents[1] / "examples" / "photos" / "nasa_group.jpg"
WIDTH, HEIGHT = 640, 480


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onnx", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args()
    settings: dict[str, Any] = {"threads": options.threads, "score_threshold": 0.5}
    detectors = {
        name: FaceDetector.from_onnx(model.onnx, runtime="onnxruntime", **settings)
        for name, model in PRETRAINED.items()
    }
    for file in options.onnx:  # recognized by their inputs and outputs
        detectors[Path(file).stem] = FaceDetector.from_onnx(file, **settings)
    picture = cv2.resize(load_image(PICTURE), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    times = interleaved(
        {name: lambda run=detector.detect: run(picture) for name, detector in detectors.items()},
        rounds=options.rounds,
        max_seconds=300.0,
    )
    result: dict[str, Any] = {
        "width": WIDTH,
        "height": HEIGHT,
        "threads": options.threads,
        "processor": processor_name(),
        "onnxruntime": onnxruntime.__version__,
        "detectors": {},
    }
    for name, timing in times.items():
        assert isinstance(timing, Timing), f"{name}: {timing}"
        result["detectors"][name] = {"milliseconds": timing.median, "quartiles": timing.quartiles}
        print(f"{name:20} {timing.median:7.1f} ms")
    print_result(result, options.json)


if __name__ == "__main__":
    main()
