"""Configuration keys that both detectors share, and where the shipped YAML files are."""

from __future__ import annotations

import difflib
import os
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from face_d2.plugins import DETECTORS, import_detectors

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = ["add_face_config", "find_config", "get_cfg", "get_config_file"]


def add_face_config(cfg: CfgNode) -> None:
    """Adds the shared keys to a Detectron2 config, in place."""
    from detectron2.config import CfgNode as CN

    # Which training mapper: "face_crop" (square crops, DF2S2) or "scale_sampling" (LFFD).
    cfg.INPUT.MAPPER = "face_crop"

    # Random square crops, resized to SIZE x SIZE; a face stays when its centre is in the crop.
    cfg.INPUT.FACE_CROP = CN()
    cfg.INPUT.FACE_CROP.ENABLED = True
    cfg.INPUT.FACE_CROP.SIZE = 640
    # What MIN_SCALE and MAX_SCALE multiply: "image", the image's shorter side, as in S3FD; or
    # "size", SIZE, so that a scale is how much the crop is shrunk, whatever the image's size.
    cfg.INPUT.FACE_CROP.SCALE_BY = "image"
    # Smallest and largest side of a crop. Where a crop is larger than the image, the rest is
    # PIXEL_MEAN.
    cfg.INPUT.FACE_CROP.MIN_SCALE = 0.3
    cfg.INPUT.FACE_CROP.MAX_SCALE = 1.0
    # A square without a face is drawn again at most this often, then kept as background.
    cfg.INPUT.FACE_CROP.ATTEMPTS = 10
    # A face whose centre is outside the crop is background; it is ignored instead where at least
    # this share of its area is in the crop. 1 ignores none.
    cfg.INPUT.FACE_CROP.IGNORE_VISIBLE = 1.0
    # Brightness, contrast, saturation and hue distortion.
    cfg.INPUT.FACE_CROP.COLOR_DISTORTION = True

    # Largest share of the training images that may turn out undecodable before training stops.
    cfg.DATALOADER.MAX_BAD_FRACTION = 0.01

    # What SOLVER.AMP.ENABLED computes in: "float16" (GPUs; Detectron2's) or "bfloat16" (GPUs, CPU).
    cfg.SOLVER.AMP.PRECISION = "float16"

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
    import_detectors()
    from detectron2.config import get_cfg as detectron2_get_cfg

    cfg = detectron2_get_cfg()
    add_face_config(cfg)
    for package in DETECTORS:  # each offers add_<detector>_config in its config module
        add = f"add_{package.removesuffix('_d2')}_config"
        getattr(import_module(f"{package}.config"), add)(cfg)
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
