"""How fast and how frugal the WIDER FACE and FDDB evaluations are, and that they are right.

Detections are generated over the official ground truth: nine of ten faces found with a jittered
box, and false positives on every image, 700,000 detections in all. The plain loops of
tests/references are timed once and must give the same AP to 1e-12; ours is timed several times,
also on two and four times the detections, in CPU seconds of the one thread at work; peak memory is
that of a process which scores text files.
FDDB is scored with 50 false positives an image on all 2,845 images, and the evaluator is fed the
test set's 16,097 images at 750 boxes while its memory is watched.

    python benchmarks/widerface_eval.py --data $DETECTRON2_DATASETS --json result.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from face_d2.cli.common import print_result
from face_d2.data.fddb import read_folds
from face_d2.evaluation.fddb.protocol import fddb_roc
from face_d2.evaluation.wider_face.files import write_predictions
from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth, read_ground_truth
from face_d2.evaluation.wider_face.protocol import widerface_ap
from face_d2.utils.files import datasets_root
from face_d2.utils.processor import peak_memory, usable_cores

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from references.wider_face_reference import widerface_ap_reference

FALSE_POSITIVES = 207  # an image, which makes 700,000 detections with the faces found
SIZES = (1, 2, 4)


def generate(truth: WiderFaceGroundTruth, size: int, seed: int) -> dict[str, np.ndarray]:
    """Detections (N, 5) x, y, w, h, score on every image; ``size`` multiplies their number."""
    generator = np.random.default_rng(seed)
    found = {}
    for index, name in enumerate(truth.names):
        boxes = np.repeat(truth.boxes[truth.faces_of(index)], size, axis=0)
        boxes = boxes[generator.random(len(boxes)) < 0.9].clip(min=0)
        jitter = boxes[:, [2, 3, 2, 3]] * generator.normal(0, 0.08, (len(boxes), 4))
        count = size * FALSE_POSITIVES
        corners = generator.uniform(0, 1000, (count, 2))
        sizes = np.exp(generator.uniform(np.log(8), np.log(300), (count, 2)))
        rows = np.concatenate([(boxes + jitter).clip(min=0), np.concatenate([corners, sizes], 1)])
        scores = np.append(generator.beta(5, 2, len(boxes)), generator.beta(1, 5, count))
        found[name] = np.concatenate([rows, scores[:, None]], axis=1)
    return found


def memory_from_files(folder: str, ground_truth: str) -> dict[str, float]:
    """Runs in a fresh process: reading and scoring text files, and the peak memory of it all."""
    truth = read_ground_truth(ground_truth)
    start = time.perf_counter()
    widerface_ap(folder, truth)
    seconds = time.perf_counter() - start
    return {"seconds_from_files": seconds, "peak_memory_mb": peak_memory()}


def time_sizes(
    sets: list[dict[str, np.ndarray]], truth: WiderFaceGroundTruth, repeats: int
) -> list[float]:
    """Median seconds of each set; they take turns, so that all see the machine alike."""
    seconds: list[list[float]] = [[] for _ in sets]
    for _ in range(repeats):
        for detections, times in zip(sets, seconds):
            times.append(_seconds_of(lambda found=detections: widerface_ap(found, truth))[0])
    return [statistics.median(times) for times in seconds]


def compare_with_reference(
    detections: dict[str, np.ndarray], truth: WiderFaceGroundTruth, repeats: int
) -> dict[str, float]:
    """The plain loops beside ours, which takes its turns around each of the three settings."""
    rows = {name: [tuple(row) for row in values.tolist()] for name, values in detections.items()}
    faces = {
        name: [tuple(box) for box in truth.boxes[truth.faces_of(i)].tolist()]
        for i, name in enumerate(truth.names)
    }
    reference_seconds, ours_seconds, differences = 0.0, [], []
    for setting, mask in truth.kept.items():
        kept = {
            name: set(np.flatnonzero(mask[truth.faces_of(i)]).tolist())
            for i, name in enumerate(truth.names)
        }
        for _ in range(repeats):
            seconds, ours = _seconds_of(lambda: widerface_ap(detections, truth))
            ours_seconds.append(seconds)
        seconds, ap = _seconds_of(
            lambda counting=kept: widerface_ap_reference(rows, faces, counting)
        )
        reference_seconds += seconds
        differences.append(abs(ap - ours[f"AP_{setting}"]))
    return {
        "reference_seconds": reference_seconds,
        "speedup": reference_seconds / statistics.median(ours_seconds),
        "largest_difference": max(differences),
    }


def _seconds_of(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, which other load on the machine changes little, and what it returns."""
    start = time.process_time()
    value = function()
    return time.process_time() - start, value


def time_fddb(folds: Path, repeats: int) -> dict[str, float]:
    """Seconds for all of FDDB with 50 false positives an image."""
    generator = np.random.default_rng(0)
    found = {}
    for fold in read_folds(folds):
        for image in fold:
            boxes = image.boxes()
            boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
            boxes += generator.normal(0, 3, boxes.shape)
            wrong = generator.uniform(0, 200, (50, 4))
            rows = np.concatenate([boxes, wrong])
            rows[:, 2:] = rows[:, 2:].clip(min=1)
            found[image.name] = np.append(rows, generator.random((len(rows), 1)), axis=1)
    seconds = [_seconds_of(lambda: fddb_roc(found, folds))[0] for _ in range(repeats)]
    return {
        "detections": sum(map(len, found.values())),
        "seconds": statistics.median(seconds),
    }


def stream_test_set(images: int, boxes: int, seed: int) -> dict[str, float]:
    """Runs in a fresh process: the evaluator on a set without labels, up to the archive."""
    import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.structures import Boxes, Instances

    from face_d2.evaluation.evaluators import WiderFaceEvaluator

    MetadataCatalog.get("unlabeled").set(evaluator_type="widerface", annotation_file=None)
    generator = torch.Generator().manual_seed(seed)
    before = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        evaluator = WiderFaceEvaluator("unlabeled", folder)
        start = time.perf_counter()
        for number in range(images):
            found = Instances((768, 1024))
            corners = 500 * torch.rand((boxes, 4), generator=generator)
            corners[:, 2:] += corners[:, :2]
            found.pred_boxes = Boxes(corners)
            found.scores = torch.rand(boxes, generator=generator)
            evaluator.process([{"image_id": f"0--Event/{number}"}], [{"instances": found}])
        evaluator.evaluate()
        seconds = time.perf_counter() - start
    return {
        "detections": images * boxes,
        "seconds": seconds,
        "peak_memory_mb": peak_memory(),
        "memory_of_the_imports_mb": before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=datasets_root(),
        help="holds widerface/eval_tools/ground_truth and fddb/FDDB-folds (%(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-reference", action="store_true", help="leave the plain loops out")
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    ground_truth = options.data / "widerface" / "eval_tools" / "ground_truth"
    truth = read_ground_truth(ground_truth)
    sets = [generate(truth, size, options.seed) for size in SIZES]
    counts = [sum(map(len, detections.values())) for detections in sets]
    result: dict[str, Any] = {
        "cores": usable_cores(),
        "numpy": np.__version__,
        "images": len(truth),
        "sizes": [
            {
                "detections": count,
                "seconds": seconds,
                "microseconds_per_detection": 1e6 * seconds / count,
            }
            for count, seconds in zip(counts, time_sizes(sets, truth, options.repeats))
        ],
    }
    context = multiprocessing.get_context("spawn")
    for detections, entry in zip(sets, result["sizes"]):
        with tempfile.TemporaryDirectory() as folder, context.Pool(1) as pool:
            write_predictions(detections, Path(folder) / "found")
            arguments = (f"{folder}/found", str(ground_truth))
            entry |= pool.apply(memory_from_files, arguments)
        print(
            "{detections:9,d} detections  {seconds:.2f} s, {seconds_from_files:.2f} s from files, "
            "{peak_memory_mb:.0f} MB".format(**entry),
            flush=True,
        )
    if not options.no_reference:
        result |= compare_with_reference(sets[0], truth, options.repeats)
        print("plain loops {reference_seconds:.1f} s: {speedup:.0f}x".format(**result), flush=True)
    result["fddb"] = time_fddb(options.data / "fddb" / "FDDB-folds", options.repeats)
    with context.Pool(1) as pool:
        result["streaming"] = pool.apply(stream_test_set, (16_097, 750, options.seed))
    print_result(result, options.json)


if __name__ == "__main__":
    main()
