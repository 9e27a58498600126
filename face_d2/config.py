"""Configuration keys shared by both detectors, and loading of config files."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_d2.plugins import import_detectors

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = [
    "add_face_config",
    "explain_missing_keys",
    "find_config",
    "get_cfg",
    "get_config_file",
    "load_config",
    "require_keys",
    "with_overrides",
    "with_weights",
]


def add_face_config(cfg: CfgNode) -> None:
    """Adds the shared keys to a Detectron2 config, in place."""
    from detectron2.config import CfgNode as CN

    # The training mapper: "face_crop" (square crops, DF2S2) or "scale_sampling" (LFFD).
    cfg.INPUT.MAPPER = "face_crop"

    # Random square crops, resized to SIZE x SIZE. A face is kept if its center is in the crop.
    cfg.INPUT.FACE_CROP = CN()
    cfg.INPUT.FACE_CROP.ENABLED = True
    cfg.INPUT.FACE_CROP.SIZE = 640
    # Minimum and maximum side of a square, relative to the shorter side of the image. One square in
    # 5 has the maximum side, or the shorter side of the image if that is less. With MAX_SCALE above
    # 1, squares may extend beyond the image; the outside is filled with PIXEL_MEAN.
    cfg.INPUT.FACE_CROP.MIN_SCALE = 0.3
    cfg.INPUT.FACE_CROP.MAX_SCALE = 1.0
    # Range [minimum, maximum] of the resize factor of a crop, drawn log-uniformly. The side of the
    # crop is SIZE / factor pixels, at most MAX_SCALE times the shorter side of the image. MIN_SCALE
    # has no effect then. []: the side is drawn from MIN_SCALE and MAX_SCALE.
    cfg.INPUT.FACE_CROP.ZOOM = []
    # Maximum number of draws until a square contains the center of a face. If none does, the last
    # square is used as background.
    cfg.INPUT.FACE_CROP.ATTEMPTS = 10
    # A face whose center is outside the crop is background. It is ignored instead if at least this
    # fraction of its area is in the crop; 1 ignores none.
    cfg.INPUT.FACE_CROP.IGNORE_VISIBLE = 1.0
    # Distort brightness, contrast, saturation and hue.
    cfg.INPUT.FACE_CROP.COLOR_DISTORTION = True

    # Training stops if more than this fraction of the training images cannot be decoded.
    cfg.DATALOADER.MAX_BAD_FRACTION = 0.01

    # Precision of SOLVER.AMP: "float16" (GPUs only, as in Detectron2) or "bfloat16" (GPUs and CPU).
    cfg.SOLVER.AMP.PRECISION = "float16"

    # Exponential moving average of the weights. Evaluation uses the averaged weights, which are
    # also "model" in every checkpoint. Checkpoints contain the trained weights too, for --resume.
    cfg.SOLVER.EMA = CN()
    cfg.SOLVER.EMA.ENABLED = False
    # Decay of the average; after t steps, it is at most (1 + t) / (10 + t).
    cfg.SOLVER.EMA.DECAY = 0.999

    # In addition to SOLVER.CHECKPOINT_PERIOD (iterations), a checkpoint is saved when the last one
    # is this many minutes old; 0 for none.
    cfg.SOLVER.CHECKPOINT_MINUTES = 0.0
    # Maximum number of files model_<iteration>.pth, saved by iterations or by time; the oldest are
    # deleted, 0 keeps all. model_final.pth and model_best.pth do not count.
    cfg.SOLVER.MAX_TO_KEEP = 0

    # Multi-scale testing. ENABLED, MIN_SIZES, MAX_SIZE and FLIP are Detectron2's own; 0 in
    # MIN_SIZES is the original size, as in INPUT.MIN_SIZE_TEST.
    # Factors of the original size, in place of MIN_SIZES and MAX_SIZE when not empty.
    cfg.TEST.AUG.SCALES = []
    # For each scale, [minimum, maximum] size of the faces that are kept from it: the longer side in
    # pixels of the original image, inclusive; a maximum of 0 is no limit. Empty: every scale keeps
    # all faces.
    cfg.TEST.AUG.SIZE_RANGES = []
    # "nms" keeps the best box of a face, "vote" averages all its boxes, weighted by score.
    cfg.TEST.AUG.MERGE = "vote"
    # Boxes of different scales with a larger IoU count as the same face.
    cfg.TEST.AUG.MERGE_IOU = 0.4
    # Scaled images of more pixels are processed in overlapping tiles.
    cfg.TEST.AUG.MAX_PIXELS = 4000000

    # The best checkpoint by this metric is saved as model_best.pth; "" saves none.
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


@functools.cache
def explain_missing_keys() -> None:
    """Makes Detectron2's error for a key of this project name the call that adds the key.

    ``face_d2.register`` calls it. The error is a KeyError or an AssertionError as before.
    """
    from detectron2.config import CfgNode

    def explaining(merge: Callable[[CfgNode, Any], None]) -> Callable[[CfgNode, Any], None]:
        @functools.wraps(merge)
        def merge_or_explain(cfg: CfgNode, other: Any) -> None:
            try:
                merge(cfg, other)
            except (AssertionError, KeyError) as error:
                found = re.search(r"Non-existent (?:config )?key: ([\w.]+)", str(error))
                call = _call_that_adds(found[1]) if found else None
                if found is None or call is None:
                    raise
                raise type(error)(
                    f"Non-existent config key: {found[1]}. Call {call}(cfg) first, or start from "
                    "face_d2.get_cfg(), which has the keys of all detectors"
                ) from error

        return merge_or_explain

    CfgNode.merge_from_other_cfg = explaining(CfgNode.merge_from_other_cfg)
    CfgNode.merge_from_list = explaining(CfgNode.merge_from_list)


def require_keys(cfg: CfgNode, key: str) -> None:
    """Checks that a config of another project has this project's keys before they are read.

    Args:
        key: a key or a node, for example "MODEL.LFFD".

    Raises:
        ValueError: the config does not have it; the message names the call that adds it.
    """
    node: Any = cfg
    for name in key.split("."):
        if name not in node:
            raise ValueError(
                f"the config has no {key}. Call {_call_that_adds(key)}(cfg) first, or start from "
                "face_d2.get_cfg(), which has the keys of all detectors."
            )
        node = node[name]


def _call_that_adds(key: str) -> str | None:
    """The function that adds a key to a config; None for a key of nobody."""
    from detectron2.config import get_cfg as detectron2_get_cfg

    cfg = detectron2_get_cfg()
    for add in (add_face_config, *(detector.add_config for detector in import_detectors())):
        add(cfg)
        if key in _keys(cfg):
            return f"{add.__module__}.{add.__name__}"
    return None


def with_overrides(cfg: CfgNode, overrides: Sequence[Any]) -> CfgNode:
    """A copy of the config that may be changed, with KEY, VALUE, ... merged into it."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(overrides))
    return cfg


def with_weights(cfg: CfgNode, weights: str | os.PathLike[str]) -> CfgNode:
    """A copy of the config with ``MODEL.WEIGHTS`` set.

    Build the network with this config. Backbones that read pretrained weights when they are built
    (``MODEL.TIMM.WEIGHTS``) then do not read them.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(weights)
    return cfg


def get_config_file(name: str) -> str:
    """Path of a shipped config, for example ``"df2s2/df2s2_R50_FFP.yaml"``.

    Raises:
        FileNotFoundError: there is no such config; the message lists similar names.
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
    """Loads a config file, given by its path or by the name of a shipped config.

    Args:
        config_file: a path, or a name such as "lffd/lffd_25L8S.yaml".
        overrides: KEY, VALUE, ...

    Raises:
        FileNotFoundError: there is neither, or a file does not find its ``_BASE_``.
        ValueError: a key does not exist, a value has the wrong type, or a command-line flag is
            among the pairs.
    """
    flags = [word for word in overrides if isinstance(word, str) and word.startswith("--")]
    if flags:
        raise ValueError(f"{' '.join(flags)} must come before the KEY VALUE pairs.")
    cfg = get_cfg()
    file = find_config(config_file)
    try:
        cfg.merge_from_file(file)
        cfg.merge_from_list(list(overrides))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{config_file}: its _BASE_ {error.filename} does not exist. A relative _BASE_ starts "
            "at the folder of the file that names it; the shipped configs are in "
            f"{files('face_d2.configs')}."
        ) from error
    except (AssertionError, KeyError, TypeError, ValueError) as error:  # Detectron2's and yacs's
        text = str(error.args[0] if error.args else error)
        where = f"{config_file}, {list(overrides)}" if overrides else f"{config_file}"
        raise ValueError(f"{where}: {text}{_nearest_keys(cfg, text)}") from error
    return cfg


def _nearest_keys(cfg: CfgNode, message: str) -> str:
    """A hint with similar keys for a key that does not exist."""
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
