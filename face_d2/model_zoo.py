"""Weights by the name of their config, like ``detectron2.model_zoo``.

::

    from face_d2 import FaceDetector, model_zoo

    model = model_zoo.get("df2s2-lite0", trained=True)  # ships with the package

    name = "lffd/lffd_25L8S.yaml"
    model = model_zoo.get(name, trained=True, download=True)
    detector = FaceDetector.from_config(name, model_zoo.get_checkpoint_file(name))

Files are downloaded only with ``download=True``. The cache folder for files is ``models`` in
``$FACE_D2_CACHE`` (default ``output/cache``). ``docs/model_zoo.md`` lists all models; they are
defined in the ``zoo`` module of each detector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from face_d2.config import get_config_file, load_config
from face_d2.plugins import import_detectors
from face_d2.pretrained import PRETRAINED
from face_d2.utils.download import download as fetch
from face_d2.utils.download import verify
from face_d2.utils.files import cache_dir, replaced_file

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

__all__ = [
    "Accuracy",
    "Model",
    "ReleasedFile",
    "Shipped",
    "TrainedHere",
    "find",
    "get",
    "get_checkpoint_file",
    "get_checkpoint_url",
    "get_config",
    "get_config_file",
    "models",
]


@dataclass(frozen=True)
class ReleasedFile:
    """Published weights.

    Attributes:
        url: the address; its last part is the name of the file in the cache.
        checksum: see :func:`face_d2.utils.download.verify`.
        license: license of the weights.
        size: size in bytes, if known.
        convert: converts the file (first argument) to a checkpoint (second argument); None if the
            file is a checkpoint.
    """

    url: str
    checksum: str
    license: str
    size: int | None = None
    convert: Callable[[Path, Path], object] | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(unquote(urlsplit(self.url).path)).name


@dataclass(frozen=True)
class Shipped:
    """Weights that ship with the package.

    Attributes:
        name: name of the detector, see :mod:`face_d2.pretrained`.
    """

    name: str


@dataclass(frozen=True)
class TrainedHere:
    """Weights that a command trains in minutes; they are not published.

    Attributes:
        command: the command; several are joined by ``&&``, where the training starts from weights
            that have to be made first.
        file: the checkpoint that it writes, relative to the working directory.
    """

    command: str
    file: str


@dataclass(frozen=True)
class Accuracy:
    """Average precision by WIDER FACE's protocol, in percent.

    Attributes:
        easy, medium, hard: AP on the three lists.
        protocol: description of the images and test settings.
        measured_here: False for figures of the authors.
    """

    easy: float
    medium: float
    hard: float
    protocol: str
    measured_here: bool

    def __str__(self) -> str:
        return f"{self.easy} / {self.medium} / {self.hard}"


@dataclass(frozen=True)
class Model:
    """A config with weights for it.

    Attributes:
        config: name of the shipped config, and the model's name.
        finds: the objects that it detects.
        weights: source of the weights.
        accuracy: its accuracy, if it was measured.
        checked: other checks that were made in this project.
    """

    config: str
    finds: str
    weights: ReleasedFile | Shipped | TrainedHere
    accuracy: Accuracy | None = None
    checked: str = ""


def models() -> dict[str, Model]:
    """All models by name; models that ship with the package come first."""
    protocol = "WIDER val, 80/20 fold, as they are"
    known = {}
    for name, model in PRETRAINED.items():
        accuracy = Accuracy(*model.average_precision, protocol, measured_here=True)
        known[name] = Model(model.config, "faces", Shipped(name), accuracy)
    for detector in import_detectors():
        known.update({model.config: model for model in detector.MODELS})
    return known


def find(name: str) -> Model:
    """The model of a name: a shipped detector, or a config with or without ``.yaml``.

    Raises:
        ValueError: there is no such model; the message lists all names.
    """
    known = models()
    model = known.get(name) or known.get(f"{name}.yaml")
    if model is None:
        raise ValueError(f"there are no weights for {name!r}; there are for: {', '.join(known)}")
    return model


def get_checkpoint_url(name: str) -> str:
    """Address of the published file of a model; LFFD's files are in MXNet's format.

    Raises:
        ValueError: there is no such model, or its weights are not published.
    """
    model = find(name)
    if isinstance(model.weights, Shipped):
        raise ValueError(
            f"{name} ships with the package; get_checkpoint_file({name!r}) is its file"
        )
    if isinstance(model.weights, TrainedHere):
        raise ValueError(
            f"weights of {model.config} are not published; train them: {model.weights.command}"
        )
    return model.weights.url


def get_checkpoint_file(
    name: str, *, download: bool = False, cache: str | Path | None = None
) -> str:
    """Path of the checkpoint of a model on this machine, for ``MODEL.WEIGHTS``.

    The checksum of a published file is verified at every call. Files in another format are
    converted.

    Args:
        name: see :func:`find`.
        download: download the file if it is not in the cache.
        cache: folder to use instead of the default cache folder.

    Raises:
        FileNotFoundError: the file does not exist and ``download`` is False, or the model must be
            trained; the message gives the expected path and how to get the file.
        ValueError: there is no such model, or the file has another checksum.
        OSError: downloading or writing failed.
    """
    model = find(name)
    weights = model.weights
    if isinstance(weights, Shipped):
        return str(PRETRAINED[weights.name].weights)
    if isinstance(weights, TrainedHere):
        if not Path(weights.file).is_file():
            raise FileNotFoundError(
                f"{weights.file}: weights of {model.config} are not published; make them: "
                f"{weights.command}"
            )
        return weights.file
    folder = Path(cache) if cache is not None else cache_dir() / "models"
    file = folder / weights.name
    if file.is_file():
        verify(file, weights.checksum)
    elif download:
        fetch(weights.url, file, weights.checksum, size=weights.size)
    else:
        raise FileNotFoundError(
            f"{file}: the weights of {model.config} are not in the cache. Pass download=True "
            f"(tools/model_zoo.py: --download), or fetch {weights.url} and put it there"
        )
    if weights.convert is None:
        return str(file)
    digits = weights.checksum.partition(":")[2][:8]
    checkpoint = folder / f"{Path(model.config).stem}-{digits}.pth"
    if not checkpoint.is_file():
        with replaced_file(checkpoint) as temporary:
            weights.convert(file, temporary)
    return str(checkpoint)


def get_config(
    name: str, trained: bool = False, *, download: bool = False, cache: str | Path | None = None
) -> CfgNode:
    """The config of a shipped detector or of any shipped YAML file.

    Args:
        name: a shipped detector, or a YAML file, e.g. "lffd/lffd_25L8S.yaml"; ``.yaml`` is
            optional.
        trained: set ``MODEL.WEIGHTS`` to the checkpoint of the model; otherwise, it is unchanged.
        download, cache: see :func:`get_checkpoint_file`.

    Raises:
        FileNotFoundError: there is no such config, or see :func:`get_checkpoint_file`.
        ValueError: see :func:`get_checkpoint_file`.
    """
    config = PRETRAINED[name].config if name in PRETRAINED else name
    cfg = load_config(get_config_file(config if config.endswith(".yaml") else f"{config}.yaml"))
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint_file(name, download=download, cache=cache)
    return cfg


def get(
    name: str,
    trained: bool = False,
    device: str | None = None,
    *,
    download: bool = False,
    cache: str | Path | None = None,
) -> nn.Module:
    """The network of a config, in training mode as in ``detectron2.model_zoo.get``.

    Args:
        name: see :func:`get_config`.
        trained: load all weights of the model; otherwise, load the initial weights of the training.
        device: replaces the device in the config; by default the CPU if there is no GPU.
        download: download weights that are not on this machine.
        cache: see :func:`get_checkpoint_file`.

    Raises:
        FileNotFoundError: see :func:`get_config`.
        ValueError: see :func:`get_checkpoint_file`; or the initial weights must be downloaded and
            ``download`` is False.
    """
    cfg = get_config(name, trained, download=download, cache=cache)
    import torch  # after what says how to install it

    if device is not None or not torch.cuda.is_available():
        cfg.MODEL.DEVICE = device or "cpu"
    if trained:
        from face_d2.predictor.torch_backend import build_detector

        return build_detector(cfg, cfg.MODEL.WEIGHTS).train()
    start = cfg.MODEL.WEIGHTS
    if "://" in start and not download:
        raise ValueError(
            f"training of {name} starts from {start}, which may have to be fetched: pass "
            "download=True; a network of random weights is build_model(model_zoo.get_config(name))"
        )
    from detectron2.modeling import build_model

    from face_d2.engine.checkpoint import FaceCheckpointer

    model = build_model(cfg)
    FaceCheckpointer(model).load(start)
    return model
