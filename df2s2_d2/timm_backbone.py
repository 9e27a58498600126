"""Networks of timm (PyTorch Image Models) as Detectron2 backbones, also with the FFP.

timm is an optional dependency (``pip install face-d2[timm]``) and is imported only when one of its
networks is built.
"""

from __future__ import annotations

import difflib
import logging
from types import ModuleType

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from df2s2_d2.ffp import build_pyramid
from df2s2_d2.timm_weights import load_weights
from face_d2.modeling.freeze import reached
from face_d2.utils.choices import check_choice

__all__ = ["TimmBackbone", "build_timm_ffp_backbone"]

logger = logging.getLogger(__name__)

NORMS = ("BN", "FrozenBN", "SyncBN")

#: Names of the stages by stride, as in Detectron2's ResNet.
_STAGES = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}
_STRIDE = 32  # sides are padded to a multiple of it
_SIDE = 64  # side of the test image for a new network


class TimmBackbone(Backbone):
    """The maps of strides 4, 8, 16 and 32 of a timm network, named like a ResNet's stages.

    ``res2`` has stride 4 and ``res5`` stride 32, independent of timm's names. Images are
    padded with zeros to a multiple of 32 at the right and bottom, and the maps are cropped to
    ceil(side / stride). Cell (i, j) of a map of stride s therefore always describes the pixels
    around (i s, j s), even if a network rounds sides down (ConvNeXt) or its padding depends on
    whether a side is odd (the ``tf_`` networks).

    Args:
        name: timm's name of the network, for example "tf_efficientnet_lite0".
        weights: "": random weights; "timm": timm's weights, downloaded by timm; a path: a timm
            state dict as safetensors or PyTorch file; "package:NAME": the weights in the installed
            package NAME.
        norm: replacement for batch normalization: "BN" changes nothing, "FrozenBN" has fixed
            weights and statistics, "SyncBN" computes statistics over all processes.
        freeze_at: as Detectron2's ``MODEL.BACKBONE.FREEZE_AT``: 0 freezes nothing, 1 freezes the
            layers up to the map of stride 2, n from 2 to 5 freezes the layers up to ``res<n>``. The
            statistics of frozen batch normalization are fixed too.
        in_channels: channels of the images.

    Raises:
        ImportError: timm, or the package of the weights, is not installed.
        FileNotFoundError: the file of weights does not exist.
        ValueError: timm has no such network, the network does not give maps of strides 4 to 32 for
            images of any size, the weights cannot be downloaded or read or are of another network,
            or an option is unknown.
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
        check_choice("MODEL.TIMM.NORM", norm, NORMS)
        timm = _import_timm()
        self.network = _create(timm, name, weights, in_channels)
        strides = self.network.feature_info.reduction()
        widths = self.network.feature_info.channels()
        # If several maps have the same stride, the deepest one is used.
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

    def _freeze(self, name: str, freeze_at: int, in_channels: int) -> None:
        """Sets ``requires_grad`` only for the parameters that are trained.

        Running the network shows which parameters a map depends on. It also checks that the maps
        have the shapes that timm states.
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
        self.eval()  # keeps the statistics of normalization
        with torch.enable_grad():
            maps = self._try(name, in_channels)
            parameters = [p for p in self.network.parameters() if p.requires_grad]
            used = reached([maps[self._places[s]] for s in _STAGES], parameters)
            frozen = reached([maps[self._places[stride]]], parameters) if stride else set()
        self.train(was_training)
        for parameter in parameters:
            parameter.requires_grad_(parameter in used and parameter not in frozen)
        for parent in list(self.network.modules()):
            for child_name, child in parent.named_children():
                if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.weight in frozen:
                    setattr(parent, child_name, _import_timm().layers.freeze_batch_norm_2d(child))

    def _try(self, name: str, channels: int) -> list[Tensor]:
        """The maps of a black image of 64 x 64 pixels."""
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

    ``MODEL.TIMM.WEIGHTS`` is read only if ``MODEL.WEIGHTS`` is empty. A checkpoint of the whole
    network contains the backbone, so loading one needs neither the file nor the package.

    With ``MODEL.FFP.FUSION`` "fpn" the pyramid is Detectron2's own FPN with P6 and P7, as in
    :func:`df2s2_d2.ffp.build_resnet_ffp_backbone`.

    Raises:
        ImportError, FileNotFoundError, ValueError: see :class:`TimmBackbone` and
            :func:`df2s2_d2.ffp.build_pyramid`.
    """
    settings = cfg.MODEL.get("TIMM")
    if settings is None or not settings.NAME:
        raise ValueError(
            "MODEL.TIMM.NAME is empty; build_timm_ffp_backbone needs the name of a timm network, "
            'for example "tf_efficientnet_lite0". In another project, add the key with '
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

    For such maps the padding is constant, while timm computes it from the size of every map. A
    constant keeps this computation out of exported networks.
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
            pads = [total // 2, total - total // 2, *pads]  # F.pad starts with the last dimension
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


def _create(timm: ModuleType, name: str, weights: str, channels: int) -> nn.Module:
    """The network without its classifier; it returns the list of its maps."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; timm.list_models() names them."
        raise ValueError(f"MODEL.TIMM.NAME {name!r} is no network of timm {timm.__version__}{hint}")
    settings = {"features_only": True, "in_chans": channels}
    if weights == "timm":
        try:
            return timm.create_model(name, pretrained=True, **settings)
        except Exception as error:  # timm's downloads raise many types
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
        load_weights(network, timm, name, weights)
    return network
