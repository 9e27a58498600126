"""Whether the 95 % intervals hold what they promise: of AP, and of paired differences of AP.

The whole of WIDER val, with a public set of detections, stands for the population. Samples of its
images are drawn, each gets its bootstrap interval, and the intervals that hold the population's
figure are counted. The second detector of a difference is the first with the detections on faces
below 20 px left out of every other image.

    python benchmarks/interval_coverage.py --predictions yolov7-tiny-leak_val_txt.tar.gz \\
        --ground-truth eval_tools/ground_truth --json result.json
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from tqdm import tqdm

from face_d2.analysis.compare.measures import MeasureSettings, differences, measure
from face_d2.analysis.compare.recorded import RecordedDetections
from face_d2.cli.common import print_result
from face_d2.detectors import Detections
from face_d2.evaluation import read_ground_truth

_SETTINGS = ("easy", "medium", "hard")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", required=True, help="of the whole of WIDER val")
    parser.add_argument("--ground-truth", required=True, help="folder of the official .mat files")
    parser.add_argument("--images", type=int, default=320, help="of a sample (%(default)s)")
    parser.add_argument("--samples", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--bootstrap", type=int, default=400, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing (%(default)s)")
    parser.add_argument("--json", metavar="PATH", help="where to write the result")
    options = parser.parse_args()

    truth = read_ground_truth(options.ground_truth)
    recorded = RecordedDetections(options.predictions)
    first = {name: recorded.of_image(name) for name in truth.names}
    second = {
        name: _without_small(found) if index % 2 else found
        for index, (name, found) in enumerate(first.items())
    }
    whole = MeasureSettings(bootstrap=0)
    expected = {"first": measure(first, truth, whole), "second": measure(second, truth, whole)}
    gaps = {row["setting"]: row["difference"] for row in differences(expected)}
    generator = np.random.default_rng(options.seed)
    inside = {f"{kind}_{key}": 0 for kind in ("AP", "difference") for key in _SETTINGS}
    for sample in tqdm(range(options.samples)):
        # Drawn without replacement: an image drawn twice would be one image. With a share s of the
        # population in a sample the true spread is sqrt(1 - s) of what the bootstrap estimates, so
        # small samples show the coverage best.
        chosen = generator.choice(len(truth), options.images, replace=False)
        names = [truth.names[index] for index in chosen]
        part = truth.subset(names)
        settings = MeasureSettings(bootstrap=options.bootstrap, seed=sample)
        measured = {
            "first": measure({name: first[name] for name in names}, part, settings),
            "second": measure({name: second[name] for name in names}, part, settings),
        }
        for key in _SETTINGS:
            low, high = measured["first"].metrics["interval_95"][key]
            inside[f"AP_{key}"] += low <= expected["first"].metrics[f"AP_{key}"] <= high
        for row in differences(measured):
            low, high = row["interval_95"]
            inside[f"difference_{row['setting']}"] += low <= gaps[row["setting"]] <= high
    result: dict[str, Any] = {
        "images": options.images,
        "population": len(truth),
        "samples": options.samples,
        "bootstrap": options.bootstrap,
        "population_difference": gaps,
        "coverage": {key: count / options.samples for key, count in inside.items()},
    }
    print_result(result, options.json)


def _without_small(found: Detections) -> Detections:
    kept = found.boxes[:, 3] - found.boxes[:, 1] >= 20
    return Detections(found.boxes[kept], found.scores[kept])


if __name__ == "__main__":
    main()
