"""AP hard of networks, and the sizes of the false boxes among their best detections.

    python benchmarks/false_boxes.py NAME=FOLDER ... --ground-truth PATH [--best N] [--large SIZE]
        [--plot FILE.png] [--json PATH]

Each FOLDER has detections in WIDER FACE's form, for example `inference/widerface_val/predictions`
in the folder of a training run. A box is false if its IoU with every labeled face is below 0.5. The
size is the square root of the area.

Claim: the number of large false boxes nearly orders the runs of the suites `pretrained` and
`batch_norm` by AP hard (rank correlation below -0.85).
"""

from __future__ import annotations

import argparse
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from scipy.stats import spearmanr
from tabulate import tabulate

from face_d2.cli.common import print_result
from face_d2.evaluation.wider_face.files import read_predictions
from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth, read_ground_truth
from face_d2.evaluation.wider_face.matching import IOU_THRESHOLD
from face_d2.evaluation.wider_face.protocol import widerface_ap
from face_d2.visualization.style import COLORS, STYLE, panel_figure, save_figure

#: Borders between the classes of size, in pixels.
BORDERS = (16, 32, 64, 128, 256)


def measure(folder: str, truth: WiderFaceGroundTruth, best: int, large: float) -> dict[str, Any]:
    """AP hard in percent and the false boxes by size, of one network."""
    predictions = read_predictions(folder)
    scored = widerface_ap(predictions, truth.subset(predictions))
    matches = scored.matches
    first = np.argsort(-matches.scores, kind="stable")[:best]
    false = first[matches.iou[first] < IOU_THRESHOLD]
    sizes = np.sqrt(matches.boxes[false, 2:].prod(axis=1))
    counts, _ = np.histogram(sizes, [0, *BORDERS, np.inf])
    return {
        "AP_hard": 100 * scored["AP_hard"],
        "large": int((sizes >= large).sum()),
        "false_by_size": counts.tolist(),
    }


def plot(result: dict[str, Any], best: int, large: float, path: Path) -> None:
    """One point per network; networks whose names are equal up to ", " look the same."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, row in result.items():
        rows.setdefault(name.partition(", ")[0], []).append(row)
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = panel_figure(1, 7.2)
        looks = ((color, marker) for marker in cycle("o^s") for color in COLORS)
        for (color, marker), (label, runs) in zip(looks, rows.items()):
            points = [[run[key] for run in runs] for key in ("large", "AP_hard")]
            axes.plot(*points, marker, color=color, label=label)
        text = f"false boxes of {large:g} pixels and more among the {best:,} best detections"
        axes.set(xlabel=text, ylabel="AP hard")
        axes.legend(loc="upper right", fontsize=8)
        save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--ground-truth", required=True, type=Path, metavar="PATH")
    parser.add_argument("--best", type=int, default=4000, help="number of detections (%(default)s)")
    parser.add_argument("--large", type=float, default=64, help="in pixels (%(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args()
    truth = read_ground_truth(options.ground_truth)
    networks = {}
    for words in options.folders:
        name, _, folder = words.partition("=")
        networks[name] = measure(folder, truth, options.best, options.large)
    classes = [f"< {BORDERS[0]}", *map("{}-{}".format, BORDERS, BORDERS[1:]), f">= {BORDERS[-1]}"]
    rows = [
        [name, f"{row['AP_hard']:.1f}", row["large"], *row["false_by_size"]]
        for name, row in networks.items()
    ]
    print(tabulate(rows, ["", "AP hard", f">= {options.large:g}", *classes], "github"))
    columns = [[row[key] for row in networks.values()] for key in ("AP_hard", "large")]
    correlation = float(spearmanr(*columns).statistic) if len(networks) > 2 else None
    print(f"rank correlation of AP hard and the large false boxes: {correlation}")
    result = {"networks": networks, "rank_correlation": correlation}
    if options.plot:
        plot(networks, options.best, options.large, options.plot)
    print_result(result, options.json)


if __name__ == "__main__":
    main()
