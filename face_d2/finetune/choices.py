"""The network, the size of crops and images, and the solver's settings for a set of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from face_d2.analysis.coverage import measure_coverage
from face_d2.config import load_config, with_overrides
from face_d2.data.mapper import build_train_mapper
from face_d2.plugins import import_detectors
from face_d2.pretrained import PRETRAINED, find_pretrained

__all__ = ["DEFAULT_MODEL", "Choices", "choose", "configure"]

DEFAULT_MODEL = "df2s2-lite0"
#: Share of the recommended learning rate: the weights are good already.
LEARNING_RATE_SHARE = 0.05
#: Largest norm of the gradient of a parameter, where the config limits none. A few difficult faces
#: in a small batch can otherwise undo the weights in twenty steps (measured on profile faces).
_GRADIENT_NORM = 1.0
#: Passes over the pictures when neither a time nor SOLVER.MAX_ITER is given.
EPOCHS = 10
_SEED = 1
#: Pictures that the choices look at; so many settle a percent.
_MOST_PICTURES = 100
#: A network, or a size, is changed for a gain of at least this share of the faces.
_GAIN = 0.02
#: Larger crops cost more time, so they have to gain more.
_CROP_GAIN = 0.05
#: Sides of crops in pixels; a step on a CPU takes too long with larger ones.
_CROPS = {"cpu": (384, 512), "cuda": (384, 512, 640)}
#: Shorter sides of the images as they are searched, for faces that are too large in the original.
_SHORTER_SIDES = (1080, 720, 480)
_SAMPLE = "face-d2-train sample"


@dataclass(frozen=True)
class Choices:
    """What was chosen.

    Attributes:
        model: a shipped detector.
        pairs: KEY, VALUE, ... that differ from its config.
        reasons: a sentence each.
    """

    model: str
    pairs: tuple[Any, ...]
    reasons: tuple[str, ...]


def choose(train: str, model: str | None, overrides: Sequence[str]) -> Choices:
    """Chooses by the coverage of the faces (:mod:`face_d2.analysis.coverage`).

    Args:
        train: the data set, registered.
        model: a shipped detector; None takes the default unless another covers more faces.
        overrides: KEY, VALUE, ... of the user; what they set is not chosen.

    Raises:
        ValueError: there is no such detector, or an override is wrong.
    """
    sample = _sample(train)
    share = None
    if model is None:
        model, share, reason = _network(sample, overrides)
    else:
        reason = f"Network: {find_pretrained(model).name}, as asked for by --model."
    reasons = [reason]
    cfg = load_config(PRETRAINED[model].config, overrides)
    import_detectors()
    build_train_mapper(cfg)  # tells a wrong INPUT.MAPPER
    given = set(overrides[::2])
    pairs: list[Any] = []
    if "INPUT.MIN_SIZE_TEST" not in given:
        size, reason = _image_size(cfg, sample, share)
        reasons.append(reason)
        if size:
            pairs += ["INPUT.MIN_SIZE_TEST", size, "INPUT.MAX_SIZE_TEST", 2 * size]
            pairs += _scaled_crops(cfg, sample, size, given)
    key = f"INPUT.{cfg.INPUT.MAPPER.upper()}.SIZE"
    if key not in given:
        side, reason = _crop(with_overrides(cfg, pairs), sample, key)
        reasons.append(reason)
        pairs += [key, side]
    return Choices(model, tuple(pairs), tuple(reasons))


def configure(
    choices: Choices, overrides: Sequence[str], *, train: str, val: str, output: str
) -> CfgNode:
    """The config of the training, with ``SOLVER.MAX_ITER`` for ten epochs.

    The ``overrides`` of the user (KEY, VALUE, ...) replace what was chosen.
    """
    cfg = load_config(PRETRAINED[choices.model].config, overrides)
    recommended = load_config(PRETRAINED[choices.model].config).SOLVER
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = cfg.SOLVER.IMS_PER_BATCH
    scale = batch / recommended.IMS_PER_BATCH
    cfg.merge_from_list(
        [
            *("MODEL.WEIGHTS", choices.model, "MODEL.DEVICE", device, "SEED", _SEED),
            # The shipped backbone was trained with fixed statistics; others need a long training.
            *("MODEL.TIMM.NORM", "FrozenBN"),
            *("SOLVER.BASE_LR", LEARNING_RATE_SHARE * scale * recommended.BASE_LR),
            *("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.STEPS", ()),
            *("SOLVER.EMA.ENABLED", True),
            *("SOLVER.CHECKPOINT_MINUTES", 2.0, "SOLVER.MAX_TO_KEEP", 1),
            *("TEST.EVAL_PERIOD", 0, "TEST.BEST_METRIC", ""),
            *("DATALOADER.NUM_WORKERS", 4 if device == "cuda" else 1),
            *choices.pairs,
        ]
    )
    if not recommended.CLIP_GRADIENTS.ENABLED:
        cfg.SOLVER.CLIP_GRADIENTS.merge_from_list(
            ["ENABLED", True, "CLIP_TYPE", "norm", "CLIP_VALUE", _GRADIENT_NORM]
        )
    cfg.merge_from_list(list(overrides))
    cfg.DATASETS.TRAIN = (train,)
    # Every evaluation by the trainer takes the time of many steps; this command makes its own.
    cfg.DATASETS.TEST = (val,) if cfg.TEST.EVAL_PERIOD else ()
    cfg.OUTPUT_DIR = output
    given = set(overrides[::2])
    if "SOLVER.MAX_ITER" not in given:
        pictures = len(DatasetCatalog.get(train))
        set_length(cfg, max(1, round(EPOCHS * pictures / batch)), given)
    # Checkpoints go by time; the file of the last iteration is written anyway.
    if "SOLVER.CHECKPOINT_PERIOD" not in given:
        cfg.SOLVER.CHECKPOINT_PERIOD = 1_000_000
    return cfg


def set_length(cfg: CfgNode, iterations: int, given: set[str]) -> None:
    """Sets ``SOLVER.MAX_ITER`` and, unless it is given, a warm-up of a tenth of it."""
    cfg.SOLVER.MAX_ITER = iterations
    if "SOLVER.WARMUP_ITERS" not in given:
        cfg.SOLVER.WARMUP_ITERS = min(300, iterations // 10)


def _sample(train: str) -> str:
    """A data set of evenly chosen pictures with a face."""
    records = [r for r in DatasetCatalog.get(train) if r["annotations"] and r["height"] > 0]
    step = max(1, -(-len(records) // _MOST_PICTURES))
    if _SAMPLE in DatasetCatalog.list():
        DatasetCatalog.pop(_SAMPLE)
    DatasetCatalog.register(_SAMPLE, lambda: records[::step])
    MetadataCatalog.get(_SAMPLE).thing_classes = ["face"]
    return _SAMPLE


def _covered(cfg: CfgNode, sample: str, training: bool = False) -> float:
    """The share of the faces above 10 pixels (of all, if there are no such faces) to learn from."""
    totals = measure_coverage(cfg, sample, training=training, progress=False).totals()
    return list(totals.values())[-1].covered


def _network(sample: str, overrides: Sequence[str]) -> tuple[str, float, str]:
    """A shipped detector, the share of the faces that it covers, and why."""
    shares = {}
    for name, shipped in PRETRAINED.items():
        try:
            shares[name] = _covered(load_config(shipped.config, overrides), sample)
        except (AssertionError, ValueError):  # the overrides are for one of the networks
            if name == DEFAULT_MODEL:
                raise
    best = max(shares, key=shares.get)
    gained = shares[best] - shares[DEFAULT_MODEL] >= _GAIN
    chosen = best if gained else DEFAULT_MODEL
    listed = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
    why = "it covers most" if gained else "the default, because no other covers 2 % more of them"
    reason = f"Network: {chosen} ({why}). Faces that each network can learn: {listed}."
    return chosen, shares[chosen], reason


def _image_size(cfg: CfgNode, sample: str, share: float | None) -> tuple[int, str]:
    """The shorter side at which images are searched; 0 for the size they have."""
    shares = {0: _covered(cfg, sample) if share is None else share}
    if shares[0] < 1 - _GAIN and cfg.INPUT.MIN_SIZE_TEST == 0:
        for side in _SHORTER_SIDES:
            pairs = ["INPUT.MIN_SIZE_TEST", side, "INPUT.MAX_SIZE_TEST", 2 * side]
            shares[side] = _covered(with_overrides(cfg, pairs), sample)
    best = max(shares, key=shares.get)
    if not best or shares[best] - shares[0] < _GAIN:
        kept = cfg.INPUT.MIN_SIZE_TEST
        size = f"a shorter side of {kept} pixels" if kept else "the size they have"
        return 0, (
            f"Images are searched at {size}: {100 * shares[0]:.1f} % of the faces above 10 pixels "
            "have an anchor or receptive field of their size."
        )
    return best, (
        f"Images are searched at a shorter side of {best} pixels, where {100 * shares[best]:.1f} % "
        f"of the faces have an anchor or receptive field of their size; as they are, "
        f"{100 * shares[0]:.1f} % have."
    )


def _scaled_crops(cfg: CfgNode, sample: str, size: int, given: set[str]) -> list[Any]:
    """The zoom of crops for images that are resized when they are searched."""
    key, zoom = "INPUT.FACE_CROP.ZOOM", cfg.INPUT.FACE_CROP.ZOOM
    if cfg.INPUT.MAPPER != "face_crop" or not zoom or key in given:
        return []
    sides = [min(r["height"], r["width"]) for r in DatasetCatalog.get(sample)]
    factor = size / float(np.median(sides))
    return [key, [round(float(end) * factor, 3) for end in zoom]]


def _crop(cfg: CfgNode, sample: str, key: str) -> tuple[int, str]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shares = {
        side: _covered(with_overrides(cfg, [key, side]), sample, training=True)
        for side in _CROPS[device]
    }
    best = max(shares.values())
    side = next(side for side, share in shares.items() if best - share < _CROP_GAIN)
    listed = ", ".join(f"{s} pixels {100 * share:.1f} %" for s, share in shares.items())
    return side, (
        f"Crops of {side} pixels, the smallest that lose less than 5 % of the faces. Faces in "
        f"crops that can be learned: {listed}."
    )
