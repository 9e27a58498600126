"""AP of whole photographs against that of tiles of the training size.

    python benchmarks/tiles.py NAME=FILE.onnx@SIDE ... --images WIDER_val/images \\
        --ground-truth eval_tools/ground_truth

A network that was trained on crops may find less in a whole photograph than in tiles of the size of
its crops, because its deep layers then see more than in training. Each file is run on the whole
photographs and on overlapping tiles of at most SIDE x SIDE pixels (:mod:`face_d2.ops.tiling`), with
the same settings. Differences are those of a paired bootstrap over the photographs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from face_d2.cli.common import print_result
from face_d2.evaluation.wider_face.breakdown import percentile_interval, resampled_aps
from face_d2.evaluation.wider_face.ground_truth import read_ground_truth
from face_d2.evaluation.wider_face.protocol import widerface_ap
from face_d2.export.accuracy import find_faces
from face_d2.predictor.api import FaceDetector
from face_d2.predictor.sources import find_inputs

LEAST_SCORE = 0.02
#: Faces up to a third of a tile are found in tiles at full size, larger ones at half size.
OVERLAP_SHARE = 3
RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="NAME=FILE@SIDE")
    parser.add_argument("--images", required=True, metavar="FOLDER")
    parser.add_argument("--ground-truth", required=True, type=Path, metavar="PATH")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the result here")
    options = parser.parse_args()
    images = [
        source.file for source in find_inputs([options.images]).sources if source.kind == "image"
    ]
    truth = read_ground_truth(options.ground_truth)
    result: dict[str, Any] = {"images": len(images), "files": {}}
    for words in options.files:
        name, _, rest = words.partition("=")
        file, _, side = rest.rpartition("@")
        ways = {
            "whole": {},
            f"tiles of {side}": {
                "max_pixels": int(side) ** 2,
                "tile_overlap": int(side) // OVERLAP_SHARE,
            },
        }
        for way, settings in ways.items():
            detector = FaceDetector.from_onnx(
                file,
                runtime="onnxruntime",
                threads=options.threads,
                score_threshold=LEAST_SCORE,
                **settings,
            )
            found = find_faces(detector, images)
            faces = truth.subset(found)
            scored = widerface_ap(found, faces)
            resampled = resampled_aps(scored.matches, faces, RESAMPLES, seed=0)
            row: dict[str, Any] = {"AP": {key: 100 * ap for key, ap in scored.items()}}
            if way == "whole":
                of_whole = resampled
            else:
                row["gain_interval_95"] = {
                    setting: percentile_interval(100 * (aps - of_whole[setting]))
                    for setting, aps in resampled.items()
                }
            result["files"].setdefault(name, {})[way] = row
            print(f"{name:20} {way:14} {row}", flush=True)
    print_result(result, options.json)


if __name__ == "__main__":
    main()
