"""Feature fusion pyramid (arXiv 1811.08557, sections 3.1 and 3.3).

From the deepest stage up, every map is multiplied by the upsampled fused map of the next deeper
stage, and the map itself is added: ``phi_i <- phi_i * Psi(phi_{i+1}) + phi_i`` (equation 1). Psi is
one transposed convolution that doubles the resolution and changes the width in a single step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import Tensor, nn

from df2s2_d2.config import add_df2s2_config
from df2s2_d2.norms import build_norm
from face_d2.modeling.freeze import freeze_unused
from face_d2.utils.choices import check_choice

__all__ = ["FFP", "FBlock", "build_pyramid", "build_resnet_ffp_backbone"]

FUSIONS = ("mul_add", "mul", "add")
UPS = ("deconv", "upsample_conv", "conv_upsample")
ACTIVATIONS = ("none", "sigmoid")


class FBlock(nn.Module):
    """Fuses a deep map into the next shallower map; the result has the size of the shallower map.

    Args:
        deep_channels: width of the deeper map (half the resolution).
        shallow_channels: width of the shallower map and of the result.
        fusion: "mul_add": ``s * Psi(d) + s`` (equation 1); "mul": ``s * Psi(d)``; "add":
            ``s + Psi(d)``.
        up: the form of Psi: "deconv", or one of the two that section 3.3 argues against:
            "upsample_conv" (nearest neighbor, then 3x3) and "conv_upsample" (3x3, then nearest
            neighbor).
        deconv_kernel: 2 or 4; the stride is 2 in both cases.
        activation: "none", or "sigmoid", which makes Psi a gate.
        init_gain: gain of Psi's Xavier initialization. In a network with random weights, products
            of unnormalized maps grow from level to level. With a small gain, every fused map is
            initially close to the unfused map.

    Raises:
        ValueError: an option is unknown.
    """

    def __init__(
        self,
        deep_channels: int,
        shallow_channels: int,
        *,
        fusion: str = "mul_add",
        up: str = "deconv",
        deconv_kernel: int = 2,
        activation: str = "none",
        init_gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("MODEL.FFP.FUSION", fusion, FUSIONS)
        check_choice("MODEL.FFP.UP", up, UPS)
        check_choice("MODEL.FFP.DECONV_KERNEL", deconv_kernel, (2, 4))
        check_choice("MODEL.FFP.PSI_ACTIVATION", activation, ACTIVATIONS)
        self.fusion, self.up, self.activation = fusion, up, activation
        if up == "deconv":
            # Kernel 4 needs one pixel of padding to double the resolution exactly.
            self.psi: nn.Module = nn.ConvTranspose2d(
                deep_channels,
                shallow_channels,
                deconv_kernel,
                stride=2,
                padding=deconv_kernel // 2 - 1,
            )
        else:
            self.psi = nn.Conv2d(deep_channels, shallow_channels, 3, padding=1)
        _xavier(self.psi, init_gain)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """Fuses ``shallow`` (N, C, H, W) with ``deep`` (N, D, ceil(H / 2), ceil(W / 2))."""
        if self.up == "upsample_conv":
            deep = F.interpolate(deep, scale_factor=2.0, mode="nearest")
        guide = self.psi(deep)
        if self.up == "conv_upsample":
            guide = F.interpolate(guide, scale_factor=2.0, mode="nearest")
        # Strided layers round odd sides up, so doubling can give one row or column too many.
        guide = guide[..., : shallow.shape[-2], : shallow.shape[-1]]
        if self.activation == "sigmoid":
            guide = guide.sigmoid()
        if self.fusion == "add":
            return shallow + guide
        product = shallow * guide
        return product + shallow if self.fusion == "mul_add" else product


class FFP(Backbone):
    """A network with the feature fusion pyramid on top.

    For four stages of strides 4 to 32, the outputs are ``ffp2`` to ``ffp7`` with strides 4 to 128:
    one map per stage, then two maps by max-pooling. Any input size works. Heads that add maps of
    different levels, such as Panoptic FPN's, need sides that are multiples of the largest stride;
    set ``size_divisibility`` to it.

    Args:
        bottom_up: the network to fuse: Detectron2's ResNet of any depth, a :class:`TimmBackbone
            <df2s2_d2.timm_backbone.TimmBackbone>`, or any other backbone.
        in_features: stages to fuse, shallow to deep, each with half the resolution of the one
            before.
        out_channels: width of every output after a 1x1 convolution; 0 keeps the native widths.
        num_pooled: number of maps that are max-pooled from the deepest one.
        norm: Detectron2's name of the normalization after the 1x1 convolutions; "" is none.
        size_divisibility: meta-architectures pad the sides of a batch to a multiple of this; 0 pads
            only to a common size.
        fusion, up, deconv_kernel, activation, init_gain: see :class:`FBlock`.

    Raises:
        ValueError: an option is unknown or out of its range, or the network does not have the
            stages.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int = 256,
        *,
        num_pooled: int = 2,
        norm: str = "",
        size_divisibility: int = 0,
        fusion: str = "mul_add",
        up: str = "deconv",
        deconv_kernel: int = 2,
        activation: str = "none",
        init_gain: float = 1.0,
    ) -> None:
        super().__init__()
        if out_channels < 0:
            raise ValueError(
                f"MODEL.FFP.OUT_CHANNELS is {out_channels}; expected a width, or 0 for the native "
                "widths."
            )
        shapes = bottom_up.output_shape()
        _check_stages(in_features, shapes)
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        strides = [shapes[name].stride for name in in_features]
        widths = [shapes[name].channels for name in in_features]
        self.f_blocks = nn.ModuleList(
            FBlock(
                deep,
                shallow,
                fusion=fusion,
                up=up,
                deconv_kernel=deconv_kernel,
                activation=activation,
                init_gain=init_gain,
            )
            for shallow, deep in pairwise(widths)
        )
        self.num_pooled = num_pooled
        self._size_divisibility = size_divisibility
        strides += [strides[-1] * 2 ** (i + 1) for i in range(num_pooled)]
        widths += [widths[-1]] * num_pooled
        self.projections = nn.ModuleList()
        if out_channels:
            for width in widths:
                layer = build_norm("MODEL.FFP.NORM", norm, out_channels)  # it has its own bias
                projection = Conv2d(width, out_channels, 1, bias=not norm, norm=layer)
                _xavier(projection)
                self.projections.append(projection)
            widths = [out_channels] * len(widths)
        self._out_features = [f"ffp{int(math.log2(stride))}" for stride in strides]
        self._out_feature_strides = dict(zip(self._out_features, strides))
        self._out_feature_channels = dict(zip(self._out_features, widths))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps images (N, 3, H, W) to {"ffp2": (N, C, ceil(H / 4), ceil(W / 4)), ...}."""
        stages = self.bottom_up(x)
        fused = stages[self.in_features[-1]]
        maps = [fused]
        for name, block in zip(self.in_features[-2::-1], reversed(self.f_blocks)):
            fused = block(stages[name], fused)
            maps.insert(0, fused)
        for _ in range(self.num_pooled):
            # ceil_mode also covers the last row and column of a map with odd sides.
            maps.append(F.max_pool2d(maps[-1], 2, stride=2, ceil_mode=True))
        if self.projections:
            maps = [project(m) for project, m in zip(self.projections, maps)]
        return dict(zip(self._out_features, maps))

    @property
    def size_divisibility(self) -> int:
        """Meta-architectures pad the sides of a batch to a multiple of this."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The same for Detectron2 main, which reads this property first."""
        return {"size_divisibility": self._size_divisibility} if self._size_divisibility else {}


@BACKBONE_REGISTRY.register()
def build_resnet_ffp_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Builds the backbone from ``MODEL.RESNETS``, ``MODEL.BACKBONE`` and ``MODEL.FFP``.

    A config without ``MODEL.FFP``, for example of another Detectron2 project, gets the defaults.

    Raises:
        ValueError: see :func:`build_pyramid`.
    """
    bottom_up = build_resnet_backbone(cfg, input_shape)
    if not cfg.MODEL.get("FFP"):
        cfg = CfgNode({"MODEL": CfgNode()})
        add_df2s2_config(cfg)
    return build_pyramid(bottom_up, cfg.MODEL.FFP, input_shape.channels)


def build_pyramid(bottom_up: Backbone, settings: CfgNode, channels: int) -> Backbone:
    """Builds the pyramid described by ``settings`` on top of a network.

    With ``FUSION`` "fpn" the result is Detectron2's own FPN with P6 and P7 convolved from the
    deepest stage, as in the RetinaNet baseline. Its outputs are named ``p2`` to ``p7``. Stages that
    are not fused are not trained.

    Args:
        settings: the config node ``MODEL.FFP``.
        channels: channels of the images.

    Raises:
        ValueError: an option is unknown, the network does not have the stages, or the width of an
            FPN is 0.
    """
    shapes = bottom_up.output_shape()
    _check_stages(settings.IN_FEATURES, shapes)
    freeze_unused(bottom_up, settings.IN_FEATURES, channels)
    if settings.FUSION == "fpn":
        if settings.OUT_CHANNELS < 1:
            raise ValueError(
                f'MODEL.FFP.OUT_CHANNELS is {settings.OUT_CHANNELS}; MODEL.FFP.FUSION "fpn" has '
                "one width, expected at least 1, for example 256."
            )
        deepest = shapes[settings.IN_FEATURES[-1]].channels
        return FPN(
            bottom_up,
            settings.IN_FEATURES,
            settings.OUT_CHANNELS,
            norm=settings.NORM and partial(build_norm, "MODEL.FFP.NORM", settings.NORM),
            top_block=LastLevelP6P7(deepest, settings.OUT_CHANNELS, settings.IN_FEATURES[-1]),
        )
    check_choice("MODEL.FFP.FUSION", settings.FUSION, (*FUSIONS, "fpn"))
    return FFP(
        bottom_up,
        settings.IN_FEATURES,
        settings.OUT_CHANNELS,
        norm=settings.NORM,
        size_divisibility=settings.SIZE_DIVISIBILITY,
        fusion=settings.FUSION,
        up=settings.UP,
        deconv_kernel=settings.DECONV_KERNEL,
        activation=settings.PSI_ACTIVATION,
        init_gain=settings.PSI_INIT_GAIN,
    )


def _check_stages(in_features: Sequence[str], shapes: Mapping[str, ShapeSpec]) -> None:
    unknown = [name for name in in_features if name not in shapes]
    if unknown or not in_features:
        raise ValueError(
            f"MODEL.FFP.IN_FEATURES asks for {unknown or 'no stage'}, but the network gives "
            f"{list(shapes)}; name some of these. A ResNet gives what MODEL.RESNETS.OUT_FEATURES "
            "lists."
        )
    strides = [shapes[name].stride for name in in_features]
    if any(deep != 2 * shallow for shallow, deep in pairwise(strides)):
        raise ValueError(
            f"MODEL.FFP.IN_FEATURES {list(in_features)} have strides {strides}; every stage "
            "must halve the resolution of the one before."
        )


def _xavier(layer: nn.Module, gain: float = 1.0) -> None:
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
