"""Feature fusion pyramid (design note DF2S2, 3.1 and 3.3).

Top-down over the stages of a network, every map is multiplied by what the fused deeper map says of
it and keeps itself: ``phi_i <- phi_i * Psi(phi_{i+1}) + phi_i`` (equation 1), Psi being one
transposed convolution that doubles the resolution and changes the width in a single step.
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

__all__ = ["FFP", "FBlock", "build_pyramid", "build_resnet_ffp_backbone"]

FUSIONS = ("mul_add", "mul", "add")
UPS = ("deconv", "upsample_conv", "conv_upsample")
ACTIVATIONS = ("none", "sigmoid")


class FBlock(nn.Module):
    """Fuses a deep map into the next shallower one, which keeps its size and width.

    Args:
        deep_channels: width of the deeper map (half the resolution).
        shallow_channels: width of the shallower map and of the result.
        fusion: "mul_add": ``s * Psi(d) + s`` (equation 1); "mul": ``s * Psi(d)``; "add":
            ``s + Psi(d)``.
        up: what Psi is: "deconv", or one of the two the note argues against: "upsample_conv"
            (nearest neighbour, then 3x3) and "conv_upsample" (3x3, then nearest neighbour).
        deconv_kernel: 2 or 4; the stride is 2 in both.
        activation: "none", or "sigmoid", which makes a gate of Psi.
        init_gain: of Psi's Xavier initialisation. Products of unnormalised maps grow from level to
            level in a network that starts from random weights; a small gain starts every fusion
            near the plain map.

    Raises:
        ValueError: on an unknown choice.
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
        _check_choice("MODEL.FFP.FUSION", fusion, FUSIONS)
        _check_choice("MODEL.FFP.UP", up, UPS)
        _check_choice("MODEL.FFP.DECONV_KERNEL", deconv_kernel, (2, 4))
        _check_choice("MODEL.FFP.PSI_ACTIVATION", activation, ACTIVATIONS)
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
        # An odd side rounds up on its way down, so that doubling gives one row or column too many.
        guide = guide[..., : shallow.shape[-2], : shallow.shape[-1]]
        if self.activation == "sigmoid":
            guide = guide.sigmoid()
        if self.fusion == "add":
            return shallow + guide
        product = shallow * guide
        return product + shallow if self.fusion == "mul_add" else product


class FFP(Backbone):
    """A network with the feature fusion pyramid on top.

    Outputs are ``ffp2`` .. ``ffp7`` with strides 4 .. 128 for four stages of strides 4 .. 32: one
    map per stage, then two max-pools of the deepest. Any input size is taken as it is; for heads
    that add maps of different levels (Panoptic FPN's) sides must be multiples of the deepest
    stride of these, which ``size_divisibility`` asks the caller for.

    Args:
        bottom_up: the network to fuse: Detectron2's ResNet of any depth, a :class:`TimmBackbone
            <df2s2_d2.timm_backbone.TimmBackbone>`, or any other backbone.
        in_features: its stages, shallow to deep, each at half the resolution of the one before.
        out_channels: width of every output by a 1x1 convolution; 0 keeps the native widths.
        num_pooled: how many maps are pooled from the deepest one.
        norm: normalisation of the 1x1 convolutions, as Detectron2 names them; "" is none.
        size_divisibility: what meta-architectures pad the sides of a batch to a multiple of; 0
            pads nothing beyond a common size.
        fusion, up, deconv_kernel, activation, init_gain: see :class:`FBlock`.

    Raises:
        ValueError: on an unknown choice, or stages the network does not give.
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
        shapes = bottom_up.output_shape()
        _check_stages(in_features, shapes)
        strides = [shapes[name].stride for name in in_features]
        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
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
                # The normalisation has a bias of its own.
                projection = Conv2d(
                    width,
                    out_channels,
                    1,
                    bias=not norm,
                    norm=build_norm("MODEL.FFP.NORM", norm, out_channels),
                )
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
            # Rounding up covers the last row and column of an odd map too.
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
        """The same for Detectron2 main, which asks here first."""
        return {"size_divisibility": self._size_divisibility} if self._size_divisibility else {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }


@BACKBONE_REGISTRY.register()
def build_resnet_ffp_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Builds the backbone from ``MODEL.RESNETS``, ``MODEL.BACKBONE`` and ``MODEL.FFP``.

    A config without ``MODEL.FFP``, any Detectron2 project's, gets the defaults.

    With ``MODEL.FFP.FUSION`` "fpn" it is Detectron2's own FPN with P6 and P7 convolved from res5,
    the RetinaNet baseline's, whose outputs are named ``p2`` .. ``p7``.

    Stages of the ResNet that are deeper than those that are fused are not trained.

    Raises:
        ValueError: on an unknown choice, stages the ResNet does not give, or an FPN without a
            width.
    """
    ffp = cfg.MODEL.get("FFP") or _default_settings()
    return build_pyramid(build_resnet_backbone(cfg, input_shape), ffp, input_shape.channels)


def build_pyramid(bottom_up: Backbone, settings: CfgNode, channels: int) -> Backbone:
    """Puts the pyramid that ``settings`` asks for on a network.

    With ``FUSION`` "fpn" it is Detectron2's own FPN with P6 and P7 convolved from the deepest
    stage, whose outputs are named ``p2`` .. ``p7``. Stages that are not fused are not trained.

    Args:
        bottom_up: the network.
        settings: the config node ``MODEL.FFP``.
        channels: of the images.

    Raises:
        ValueError: on an unknown choice, stages that the network does not give, or an FPN without a
            width.
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
    _check_choice("MODEL.FFP.FUSION", settings.FUSION, (*FUSIONS, "fpn"))
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


def _default_settings() -> CfgNode:
    cfg = CfgNode({"MODEL": CfgNode()})
    add_df2s2_config(cfg)
    return cfg.MODEL.FFP


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


def _check_choice(key: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise ValueError(f"{key} is {value!r}; expected one of {list(choices)}.")
