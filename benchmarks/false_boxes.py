"""The sizes of the false boxes among the best detections of networks.

    python benchmarks/false_boxes.py FOLDER ... --ground-truth PATH [--best N] [--json PATH]

Each FOLDER has detections in WIDER FACE's form, for example `inference/widerface_val/predictions`
in the folder of a training run. A box is false if its IoU with every labeled face is below 0.5. The
size is the square root of the area.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from tabulate import tabulate

from face_d2.evaluation.wider_face.files import read_predictions
from face_d2.evaluation.wider_face.ground_truth import read_ground_truth
from face_d2.evaluation.wider_face.matching import IOU_THRESHOLD
from face_d2.evaluation.wider_face.protocol import widerface_ap

#: Borders between the classes of size, in pixels.
BORDERS = (16, 32, 64, 128, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--ground-truth", required=True, type=Path, metavar="PATH")
    parser.add_argument("--best", type=int, default=4000, help="number of detections (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args()
    truth = read_ground_truth(options.ground_truth)
    edges = [0, *BORDERS, np.inf]
    classes = [f"<{BORDERS[0]}", *map("{}-{}".format, BORDERS, BORDERS[1:]), f">={BORDERS[-1]}"]
    result = {}
    for folder in options.folders:
        predictions = read_predictions(folder)
        matches = widerface_ap(predictions, truth.subset(predictions)).matches
        best = np.argsort(-matches.scores, kind="stable")[: options.best]
        false = best[matches.iou[best] < IOU_THRESHOLD]
        counts, _ = np.histogram(np.sqrt(matches.boxes[false, 2:].prod(axis=1)), edges)
        result[str(folder)] = dict(zip(classes, counts.tolist()))
    print(tabulate([[name, *row.values()] for name, row in result.items()], ["", *classes]))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
