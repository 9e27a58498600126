"""Trains or evaluates a config: ``python -m face_d2.train_net --config-file FILE [KEY VALUE ...]``.

The flags are those of Detectron2's ``tools/train_net.py``; ``--num-processes N`` adds processes on
a CPU. ``--num-gpus 0`` sets ``MODEL.DEVICE cpu``.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from face_d2.plugins import DETECTORS, import_detectors

import_detectors()

from detectron2.config import CfgNode  # noqa: E402  (after compat)
from detectron2.engine import default_argument_parser, default_setup  # noqa: E402
from detectron2.evaluation import verify_results  # noqa: E402
from detectron2.utils import comm  # noqa: E402
from detectron2.utils.logger import setup_logger  # noqa: E402
from torch import nn  # noqa: E402

from face_d2.config import find_config, get_cfg, with_weights  # noqa: E402
from face_d2.engine.checkpoint import FaceCheckpointer  # noqa: E402
from face_d2.engine.launch import launch  # noqa: E402
from face_d2.engine.trainer import FaceTrainer  # noqa: E402
from face_d2.modeling.tta import MultiScaleTTA  # noqa: E402

__all__ = ["load_cfg", "main", "parser", "train_or_evaluate"]


def parser() -> argparse.ArgumentParser:
    """Detectron2's flags and ``--num-processes``."""
    result = default_argument_parser()
    # A free port is looked for; Detectron2's fixed one breaks a second run on the same machine.
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
        SystemExit: on flags behind the KEY VALUE pairs, which Detectron2's parser takes for keys.
        ValueError: on keys that do not exist and values that do not fit.
    """
    strays = [word for word in args.opts or [] if word.startswith("--")]
    if strays:
        raise SystemExit(f"{' '.join(strays)} must come before the KEY VALUE pairs.")
    cfg = get_cfg()
    try:
        cfg.merge_from_file(args.config_file)
        cfg.merge_from_list(args.opts)
    except (AssertionError, KeyError, TypeError, ValueError) as error:  # Detectron2's and yacs's
        text = str(error.args[0] if error.args else error)
        raise ValueError(f"{args.config_file}, {args.opts}: {text}{_nearest(cfg, text)}") from error
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
    _end_earlier_logs()
    default_setup(cfg, args)
    _share_logging()
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
        args.config_file = find_config(args.config_file)  # it may be a shipped one's name
        load_cfg(args)  # a mistake in it is said once, not by every process
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from None
    launch(train_or_evaluate, args)


def _nearest(cfg: CfgNode, message: str) -> str:
    """What a key that does not exist may have been meant to be."""
    keys = list(_keys(cfg))
    unknown = [word for word in re.findall(r"[A-Z][A-Z0-9_.]+", message) if "." in word]
    near = [key for word in unknown if word not in keys for key in get_close_matches(word, keys)]
    return f"; did you mean {', '.join(near)}?" if near else ""


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")


def _end_earlier_logs() -> None:
    """Closes the logs of an earlier run of this process, which would go on into its folder."""
    for name in ("fvcore", "detectron2"):
        logging.getLogger(name).handlers.clear()
    setup_logger.cache_clear()  # or a folder that is used again would get no log


def _share_logging() -> None:
    """Makes this project's loggers heard where default_setup makes Detectron2's heard."""
    for package in ("face_d2", *DETECTORS):
        logger = logging.getLogger(package)
        logger.handlers = list(logging.getLogger("detectron2").handlers)
        logger.setLevel(logging.INFO)
        logger.propagate = False


if __name__ == "__main__":
    main()
