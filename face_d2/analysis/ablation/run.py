"""One run of a suite: trains, evaluates, measures the cost and writes one JSON file.

    python -m face_d2.analysis.ablation.run --result FILE.json --config-file FILE [KEY VALUE ...]

The other flags are those of ``face_d2.train_net``.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)

import portalocker
import torch
from detectron2.config import CfgNode
from detectron2.config import get_cfg as detectron2_defaults
from detectron2.utils import comm

from face_d2 import compat, train_net
from face_d2.analysis.ablation.differences import resampled_run
from face_d2.analysis.cost import measure_cost
from face_d2.engine.launch import launch
from face_d2.evaluation.evaluators import dataset_ground_truth
from face_d2.evaluation.wider_face.ground_truth import SETTINGS
from face_d2.utils.files import write_json

__all__ = ["check_settings", "main", "planned_iterations", "run_settings"]

logger = logging.getLogger(__name__)

#: Keys that may differ between comparable runs.
_NEUTRAL = (
    "OUTPUT_DIR",
    "SEED",
    "VERSION",
    "CUDNN_BENCHMARK",
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the child process."""
    launch(_run, _parse(arguments))


def run_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings on which the results of a run depend: config key -> value, as in JSON.

    These are all keys that Detectron2 does not have, and all keys with a value other than
    Detectron2's default.
    """
    return _settings(train_net.load_cfg(_parse(arguments)))


def planned_iterations(arguments: Sequence[str]) -> int:
    """``SOLVER.MAX_ITER`` of a run."""
    return int(train_net.load_cfg(_parse(arguments)).SOLVER.MAX_ITER)


def check_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Compares the settings in a JSON file with the current ones, for the keys that both have.

    Raises:
        ValueError: a value differs; the message names the first such key and says what to do.
    """
    saved = json.loads(file.read_text(encoding="utf-8"))["settings"]
    for key in sorted(saved.keys() & settings.keys()):
        if saved[key] != settings[key]:
            raise ValueError(
                f"{file} was made with {key} {saved[key]!r}, now it is {settings[key]!r}: not one "
                "table. Take other folders (--output, --results) for the new setting."
            )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = train_net.parser()
    parser.add_argument("--result", type=Path, required=True, metavar="FILE.json")
    return parser.parse_args(arguments)


def _run(args: argparse.Namespace) -> None:
    cfg = train_net.load_cfg(args)
    if not comm.is_main_process():
        train_net.train_or_evaluate(args)
        return
    with _alone_in(Path(cfg.OUTPUT_DIR)):
        train_net.train_or_evaluate(args)
        _record(args, cfg)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps out a second process, for example a remaining child of a killed suite."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = portalocker.Lock(folder / "lock", mode="a", timeout=0, fail_when_locked=True)
    try:
        lock.acquire()
    except portalocker.exceptions.LockException as error:
        raise SystemExit(f"another process trains in {folder}; wait for it or end it.") from error
    try:
        yield
    finally:
        lock.release()


def _record(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Writes the result file of a finished training."""
    folder = Path(cfg.OUTPUT_DIR)
    (dataset,) = cfg.DATASETS.TEST
    inference = folder / "inference" / dataset
    report = json.loads((inference / "widerface.json").read_text())
    ground_truth = dataset_ground_truth(dataset)
    assert ground_truth is not None, "widerface.json is only written for labels"
    step = _seconds_per_iteration(folder / "metrics.json")
    result = {
        "row": Path(args.config_file).stem,
        "seed": cfg.SEED,
        **{f"AP_{setting}": report[f"AP_{setting}"] for setting in SETTINGS},
        "interval_95": report["interval_95"],
        "dataset": dataset,
        "protocol": report["protocol"],
        **measure_cost(cfg, folder / "model_final.pth"),
        "iterations": cfg.SOLVER.MAX_ITER,
        "seconds_per_iteration": step,
        "training_seconds": step * cfg.SOLVER.MAX_ITER,
        "device": _device(cfg),
        "torch": torch.__version__,
        "detectron2": compat.detectron2_version(),
        "settings": _settings(cfg),
        "resampled": resampled_run(inference / "predictions", ground_truth),
    }
    write_json(result, args.result)
    logger.info("wrote %s", args.result)


def _settings(cfg: CfgNode) -> dict[str, Any]:
    stock = _flat(detectron2_defaults())
    mine = {
        key: value
        for key, value in _flat(cfg).items()
        if key not in _NEUTRAL and (key not in stock or stock[key] != value)
    }
    return json.loads(json.dumps(mine))


def _flat(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, CfgNode):
            leaves.update(_flat(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _seconds_per_iteration(metrics: Path) -> float:
    """Median over the log, which also works for a resumed run; NaN for a very short run."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    times = [row["time"] for row in rows if "time" in row]
    return statistics.median(times) if times else float("nan")


def _device(cfg: CfgNode) -> str:
    processes = comm.get_world_size()
    if torch.device(cfg.MODEL.DEVICE).type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"CPU, {processes} process(es) of {threads} thread(s)"


if __name__ == "__main__":
    main()
