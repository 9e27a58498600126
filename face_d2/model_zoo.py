"""Weights by the name of their config, in the manner of ``detectron2.model_zoo``.

::

    from face_d2 import FaceDetector, model_zoo

    name = "lffd/lffd_25L8S.yaml"
    model = model_zoo.get(name, trained=True, download=True)
    detector = FaceDetector.from_config(name, model_zoo.get_checkpoint_file(name))

Nothing is asked of the network unless ``download=True`` says so. What was fetched, or put there by
hand, stays in the cache folder: ``models`` in ``$FACE_D2_CACHE`` (default ``output/cache``).
``docs/model_zoo.md`` shows all models; each detector's are in its ``zoo`` module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from face_d2.config import get_config_file, load_config
from face_d2.plugins import import_detectors
from face_d2.utils.download import download as fetch
from face_d2.utils.download import verify
from face_d2.utils.files import cache_dir, replaced_file

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

__all__ = [
    "Figures",
    "Model",
    "ReleasedFile",
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
    """Weights that somebody published.

    Attributes:
        url: where; its last part is the file's name in the cache.
        checksum: see :func:`face_d2.utils.download.verify`.
        licence: under which they are given.
        size: bytes, where known.
        convert: makes the checkpoint (second argument) of the file (first); None if it is one.
    """

    url: str
    checksum: str
    licence: str
    size: int | None = None
    convert: Callable[[Path, Path], object] | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(unquote(urlsplit(self.url).path)).name


@dataclass(frozen=True)
class TrainedHere:
    """Weights that everyone trains alike, in minutes; none are published.

    Attributes:
        command: what makes them.
        file: where it leaves them, from the working directory.
    """

    command: str
    file: str


@dataclass(frozen=True)
class Figures:
    """Average precision by WIDER FACE's protocol, in per cent.

    Attributes:
        easy, medium, hard: the three lists' AP.
        protocol: images, their size, and what else it hangs on.
        measured_here: False for figures that are the authors'.
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
        finds: what it detects.
        weights: where they come from.
        figures: its accuracy, where somebody measured it.
        checked: what was checked here beside that.
    """

    config: str
    finds: str
    weights: ReleasedFile | TrainedHere
    figures: Figures | None = None
    checked: str = ""


def models() -> dict[str, Model]:
    """All models by name."""
    found = [model for detector in import_detectors() for model in detector.MODELS]
    return {model.config: model for model in found}


def find(name: str) -> Model:
    """A model by its config's name; ``.yaml`` may be left out.

    Raises:
        ValueError: there is none of that name; those that there are are named.
    """
    known = models()
    model = known.get(name) or known.get(f"{name}.yaml")
    if model is None:
        raise ValueError(f"there are no weights for {name!r}; there are for: {', '.join(known)}")
    return model


def get_checkpoint_url(name: str) -> str:
    """Address of a model's published file, which for LFFD's is not yet Detectron2's form.

    Raises:
        ValueError: there is no such model, or its weights are not published.
    """
    model = find(name)
    if isinstance(model.weights, TrainedHere):
        raise ValueError(
            f"weights of {model.config} are not published; train them: {model.weights.command}"
        )
    return model.weights.url


def get_checkpoint_file(
    name: str, *, download: bool = False, cache: str | Path | None = None
) -> str:
    """A model's checkpoint on this machine, as ``MODEL.WEIGHTS`` takes it.

    A published file is checked by its checksum at every call, and converted where it is of another
    form.

    Args:
        name: see :func:`find`.
        download: fetch the file if it is not in the cache.
        cache: folder to look in and to fetch to, in place of the usual one.

    Raises:
        FileNotFoundError: it is not there, and ``download`` is False, or it has to be trained; the
            message says where it is looked for, and how it comes there.
        ValueError: there is no such model, or the file is not the one that is wanted.
        OSError: fetching or writing failed.
    """
    model = find(name)
    weights = model.weights
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
    name: str,
    trained: bool = False,
    *,
    download: bool = False,
    cache: str | Path | None = None,
) -> CfgNode:
    """The config of a name, of any that is shipped.

    Args:
        name: of a YAML file, e.g. "lffd/lffd_25L8S.yaml"; ``.yaml`` may be left out.
        trained: put the model's checkpoint into ``MODEL.WEIGHTS``; else it stays as in the file.
        download: see :func:`get_checkpoint_file`.
        cache: see :func:`get_checkpoint_file`.

    Raises:
        FileNotFoundError: there is no such config, or see :func:`get_checkpoint_file`.
        ValueError: see :func:`get_checkpoint_file`.
    """
    cfg = load_config(get_config_file(name if name.endswith(".yaml") else f"{name}.yaml"))
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
    """A network by its config's name, in training mode, as ``detectron2.model_zoo.get`` gives it.

    Args:
        name: see :func:`get_config`.
        trained: with the model's weights, all of them; else with those that training starts from.
        device: in place of the config's; by default the CPU where there is no GPU.
        download: fetch weights that are not on this machine.
        cache: see :func:`get_checkpoint_file`.

    Raises:
        FileNotFoundError: see :func:`get_config`.
        ValueError: see :func:`get_checkpoint_file`; or the weights that training starts from would
            have to be fetched, and ``download`` is False.
    """
    import torch

    cfg = get_config(name, trained, download=download, cache=cache)
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
