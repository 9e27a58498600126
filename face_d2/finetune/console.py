"""The terminal of a run."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
from detectron2.config import CfgNode

from face_d2.train_net import set_up_run

__all__ = ["console"]


def console(cfg: CfgNode) -> logging.Logger:
    """Sets up the run: Detectron2's log goes to ``log.txt``, only its warnings to the terminal.

    Returns:
        The logger for both.
    """
    redirected = io.StringIO()
    with contextlib.redirect_stdout(redirected):
        set_up_run(cfg, argparse.Namespace(config_file="", eval_only=False))
    for name in ("detectron2", "fvcore"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is redirected:
                handler.setStream(sys.stderr)
                handler.setLevel(logging.WARNING)
    say = logging.getLogger("face_d2.finetune")
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    say.handlers = [terminal]
    say.setLevel(logging.INFO)
    return say
