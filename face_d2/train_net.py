"""Trains or evaluates a config: ``python -m face_d2.train_net --config-file FILE [KEY VALUE ...]``.

The flags are those of Detectron2's ``tools/train_net.py``; ``--num-processes N`` adds processes on
a CPU. ``--num-gpus 0`` sets ``MODEL.DEVICE cpu``.
"""

from __future__ import annotations

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
import argparse
import logging
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from face_d2.config import find_config, load_config, with_weights
from face_d2.data.catalog import log_labels, register_data_sets
from face_d2.engine.checkpoint import FaceCheckpointer, local_weights
from face_d2.engine.launch import launch
from face_d2.engine.preflight import check_files
from face_d2.engine.trainer import FaceTrainer
from face_d2.modeling.tta import MultiScaleTTA
from face_d2.plugins import DETECTORS

__all__ = ["load_cfg", "main", "parser", "set_up_run", "train_or_evaluate"]


def parser() -> argparse.ArgumentParser:
    """Detectron2's flags and ``--num-processes``."""
    result = default_argument_parser()
    # "auto" finds a free port; Detectron2's fixed port breaks a second run on the same machine.
    result.set_defaults(dist_url="auto")
    result.add_argument(
        "--num-processes",
        type=int,
        default=1,
        metavar="N",
        help="processes per machine on the CPU (with --num-gpus 0)",
    )
    return result


def load_cfg(args: argparse.Namespace) -> CfgNode:
    """The config of a run, frozen: defaults, file, command line.

    Raises:
        FileNotFoundError, ValueError: see :func:`face_d2.config.load_config`.
    """
    cfg = load_config(args.config_file, args.opts or [])
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    return cfg


def train_or_evaluate(args: argparse.Namespace) -> Any:
    """The work of one process.

    Returns:
        The evaluation's results.
    """
    cfg = load_cfg(args)
    register_data_sets([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    set_up_run(cfg, args)
    log_labels(_used_data_sets(cfg, args))
    if not args.eval_only:
        trainer = FaceTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    earlier = FaceCheckpointer(nn.Identity(), save_dir=cfg.OUTPUT_DIR)
    resumed = earlier.get_checkpoint_file() if args.resume else ""
    weights = resumed or cfg.MODEL.WEIGHTS
    if not weights:
        raise SystemExit("--eval-only needs trained weights: add MODEL.WEIGHTS PATH.")
    model = FaceTrainer.build_model(with_weights(cfg, weights))
    checkpointer = FaceCheckpointer(model)
    checkpointer.load(weights)
    checkpointer.require_all()
    if cfg.TEST.AUG.ENABLED:
        MultiScaleTTA(cfg, model)  # reports bad keys before the first evaluation
    results = FaceTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(FaceTrainer.test_with_TTA(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``face-d2-train``."""
    args = parser().parse_args(argv)
    if not args.config_file:
        raise SystemExit("--config-file is missing, for example configs/quick/df2s2_synth.yaml")
    try:
        args.config_file = find_config(args.config_file)  # Detectron2 copies it to the log
        cfg = load_cfg(args)  # a mistake in it is said once, not by every process
        register_data_sets([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
        check_files(_used_data_sets(cfg, args))
        _fetch_weights(cfg, args)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from None
    launch(train_or_evaluate, args)


def _used_data_sets(cfg: CfgNode, args: argparse.Namespace) -> list[str]:
    return [*(() if args.eval_only else cfg.DATASETS.TRAIN), *cfg.DATASETS.TEST]


def set_up_run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Detectron2's ``default_setup``, with the log of this project's packages in the same file."""
    _end_earlier_logs()
    default_setup(cfg, args)
    _share_logging()


def _fetch_weights(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Fetches ``MODEL.WEIGHTS`` if it is an address, before the processes start."""
    resumed = args.resume and Path(cfg.OUTPUT_DIR, "last_checkpoint").is_file()
    # The first machine sends the weights to the others.
    if "://" in cfg.MODEL.WEIGHTS and args.machine_rank == 0 and not resumed:
        local_weights(cfg.MODEL.WEIGHTS)


def _end_earlier_logs() -> None:
    """Closes the logs of an earlier run in this process, which would still be written."""
    for name in ("fvcore", "detectron2"):
        logging.getLogger(name).handlers.clear()
    setup_logger.cache_clear()  # otherwise, a folder that is used again would get no log


def _share_logging() -> None:
    """Gives this project's loggers the handlers that default_setup gives to Detectron2's."""
    for package in ("face_d2", *DETECTORS):
        logger = logging.getLogger(package)
        logger.handlers = list(logging.getLogger("detectron2").handlers)
        logger.setLevel(logging.INFO)
        logger.propagate = False


if __name__ == "__main__":
    main()
