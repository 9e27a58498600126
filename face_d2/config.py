"""Configuration keys that both detectors share, and where the shipped YAML files are."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_d2.plugins import import_detectors

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = [
    "add_face_config",
    "find_config",
    "get_cfg",
    "get_config_file",
    "load_config",
    "with_weights",
]


def add_face_config(cfg: CfgNode) -> None:
    """Adds the shared keys to a Detectron2 config, in place."""
    from detectron2.config import CfgNode as CN

    # Which training mapper: "face_crop" (square crops, DF2S2) or "scale_sampling" (LFFD).
    cfg.INPUT.MAPPER = "face_crop"

    # S3FD's random crop: one of five squares, faces kept by their centre, resized to SIZE x SIZE.
    cfg.INPUT.FACE_CROP = CN()
    cfg.INPUT.FACE_CROP.ENABLED = True
    cfg.INPUT.FACE_CROP.SIZE = 640
    # Side of the smaller squares as a share of the image's shorter side.
    cfg.INPUT.FACE_CROP.MIN_SCALE = 0.3
    # A square without a face is drawn again at most this often, then kept as background.
    cfg.INPUT.FACE_CROP.ATTEMPTS = 10
    # Brightness, contrast, saturation and hue distortion.
    cfg.INPUT.FACE_CROP.COLOR_DISTORTION = True

    # Largest share of the training images that may turn out undecodable before training stops.
    cfg.DATALOADER.MAX_BAD_FRACTION = 0.01

    # What SOLVER.AMP.ENABLED computes in: "float16" (GPUs; Detectron2's) or "bfloat16" (GPUs, CPU).
    cfg.SOLVER.AMP.PRECISION = "float16"

    # Exponential moving average of the weights. Evaluation uses the averaged weights, and they are
    # the "model" of every checkpoint; the weights that are trained lie beside them for --resume.
    cfg.SOLVER.EMA = CN()
    cfg.SOLVER.EMA.ENABLED = False
    # A step keeps this share d of the average; after t steps d is at most (1 + t) / (10 + t).
    cfg.SOLVER.EMA.DECAY = 0.999

    # Besides SOLVER.CHECKPOINT_PERIOD (iterations): a checkpoint also when the last one is this
    # many minutes old; 0 for none.
    cfg.SOLVER.CHECKPOINT_MINUTES = 0.0
    # How many checkpoints of both kinds are kept, the newest ones; 0 keeps all. model_final.pth and
    # model_best.pth do not count.
    cfg.SOLVER.MAX_TO_KEEP = 0

    # Multi-scale testing. ENABLED, MIN_SIZES, MAX_SIZE and FLIP are Detectron2's own; 0 among
    # MIN_SIZES is the image as it is, like INPUT.MIN_SIZE_TEST 0.
    # Factors of the original size, in place of MIN_SIZES and MAX_SIZE when not empty.
    cfg.TEST.AUG.SCALES = []
    # Per scale [least, greatest] face taken from it: longer side in pixels of the original image,
    # both included, greatest 0 for no limit. Empty takes all faces from all scales.
    cfg.TEST.AUG.SIZE_RANGES = []
    # "nms" keeps the best box of a face, "vote" the score-weighted mean of all.
    cfg.TEST.AUG.MERGE = "vote"
    # Boxes of different scales that overlap by more than this are one face.
    cfg.TEST.AUG.MERGE_IOU = 0.4
    # A scaled image of more pixels is searched in overlapping tiles.
    cfg.TEST.AUG.MAX_PIXELS = 4000000

    # The best checkpoint by this metric is kept as model_best.pth ("" keeps none).
    cfg.TEST.BEST_METRIC = "widerface/AP_hard"


def get_cfg() -> CfgNode:
    """Detectron2's default config with the keys of every detector added.

    Importing the detectors registers them and the data sets as well.
    """
    detectors = import_detectors()
    from detectron2.config import get_cfg as detectron2_get_cfg

    cfg = detectron2_get_cfg()
    add_face_config(cfg)
    for detector in detectors:
        detector.add_config(cfg)
    return cfg


def with_weights(cfg: CfgNode, weights: str | os.PathLike[str]) -> CfgNode:
    """A copy of the config that names the checkpoint its network is going to get.

    Build the network with it: a backbone that is loaded while it is built (``MODEL.TIMM.WEIGHTS``)
    then needs no weights of its own.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(weights)
    return cfg


def get_config_file(name: str) -> str:
    """Path of a shipped config, for example ``"df2s2/df2s2_R50_FFP.yaml"``.

    Raises:
        FileNotFoundError: naming the nearest ones, when ``name`` is none.
    """
    root = Path(str(files("face_d2.configs")))
    path = root / name
    if not path.is_file():
        known = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.yaml"))
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0)
        raise FileNotFoundError(
            f"no shipped config {name!r}; there are: {', '.join(nearest)} (nearest of {len(known)})"
        )
    return str(path)


def find_config(file: str | os.PathLike[str]) -> str:
    """Path of a config given by its path, or by the name of a shipped one.

    Raises:
        FileNotFoundError: there is neither; see :func:`get_config_file`.
    """
    if os.path.isfile(file):
        return str(file)
    try:
        return get_config_file(str(file))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no such file, and {error}") from None


def load_config(config_file: str | os.PathLike[str], overrides: Sequence[Any] = ()) -> CfgNode:
    """The config of a file, or of a shipped one by its name.

    Args:
        config_file: a path, or a name such as "lffd/lffd_25L8S.yaml".
        overrides: KEY, VALUE, ...

    Raises:
        FileNotFoundError: there is neither.
        ValueError: a key does not exist, or its value does not fit; or a flag of a command line
            stands among the pairs.
    """
    flags = [word for word in overrides if isinstance(word, str) and word.startswith("--")]
    if flags:
        raise ValueError(f"{' '.join(flags)} must come before the KEY VALUE pairs.")
    cfg = get_cfg()
    try:
        cfg.merge_from_file(find_config(config_file))
        cfg.merge_from_list(list(overrides))
    except (AssertionError, KeyError, TypeError, ValueError) as error:  # Detectron2's and yacs's
        text = str(error.args[0] if error.args else error)
        where = f"{config_file}, {list(overrides)}" if overrides else f"{config_file}"
        raise ValueError(f"{where}: {text}{_nearest_keys(cfg, text)}") from error
    return cfg


def _nearest_keys(cfg: CfgNode, message: str) -> str:
    """What a key that does not exist may have been meant to be."""
    keys = list(_keys(cfg))
    unknown = [word for word in re.findall(r"[A-Z][A-Z0-9_.]+", message) if "." in word]
    near = [
        key for word in unknown if word not in keys for key in difflib.get_close_matches(word, keys)
    ]
    return f"; did you mean {', '.join(near)}?" if near else ""


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
