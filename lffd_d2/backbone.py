"""The LFFD backbone: a plain stack of 3x3 convolutions with residual sums and no normalization.

Paper: https://arxiv.org/abs/1904.10633, Figure 2. The layers and residual connections are those of
the released code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from lffd_d2.config import add_lffd_config, variant_from_config
from lffd_d2.receptive_field import Variant

__all__ = ["LFFDNet", "build_lffd_backbone", "init_conv"]


def init_conv(conv: nn.Conv2d, init: str) -> None:
    """Initializes the weights of a convolution and sets its bias to zero.

    Args:
        init: "xavier" (Glorot uniform, as in the released code), or "fixup" (He normal; the caller
            initializes residual units and outputs differently).

    Raises:
        ValueError: ``init`` is neither.
    """
    if init == "xavier":
        nn.init.xavier_uniform_(conv.weight)
    elif init == "fixup":
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    else:
        raise ValueError(f'MODEL.LFFD.INIT is "xavier" or "fixup", not {init!r}.')
    nn.init.zeros_(conv.bias)


class LFFDNet(Backbone):
    """The convolutions ``conv1``, ``conv2``, ... of a variant; its taps are the features.

    Residual sums use values before the ReLU: ``t = conv_b(relu(conv_a(relu(t_prev)))) + t_prev``,
    where the first ``t_prev`` of a stage is the output of its stride-2 convolution before the ReLU.
    The next layer and the tap get ``relu(t)``.

    Args:
        variant: the network as data.
        in_channels: channels of the input.
        init: "xavier", as in the released code, with which learning starts slowly because there is
            no normalization; or "fixup" for short schedules, with which every residual unit starts
            as the identity, so that the scale of the signal is kept (Zhang et al.,
            https://arxiv.org/abs/1901.09321).
    """

    def __init__(self, variant: Variant, in_channels: int = 3, init: str = "xavier") -> None:
        super().__init__()
        self.variant = variant
        for number, (kind, width) in enumerate(zip(variant.layers, variant.widths), start=1):
            stride, padding = (2, 0) if kind == "D" else (1, 1)
            conv = nn.Conv2d(in_channels, width, 3, stride, padding)
            init_conv(conv, init)
            # Layers after the last tap are never run, and DistributedDataParallel would wait for
            # them.
            conv.requires_grad_(number <= variant.depth())
            self.add_module(f"conv{number}", conv)
            in_channels = width
        if init == "fixup":
            self._start_units_as_identity()

    def forward(self, x: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Computes the features of ``taps``, by default all, of normalized images (N, C, H, W).

        Returns:
            ``{"c8": (N, 64, h, w), ...}`` after the ReLU, shallow to deep.

        Raises:
            ValueError: the image is too small for the layers to run.
        """
        variant = self.variant
        wanted = variant.taps if taps is None else taps
        if min(x.shape[-2:]) < variant.min_input(wanted):
            raise ValueError(
                f"LFFD {variant.name} needs images of at least {variant.min_input(wanted)} pixels "
                f"either way, got {x.shape[-2]} x {x.shape[-1]} (height x width); enlarge the image"
            )
        features: dict[str, Tensor] = {}
        carrier = x  # t_prev
        depth = variant.depth(wanted)
        for index, (kind, ends_unit) in enumerate(
            zip(variant.layers[:depth], variant.residual_ends)
        ):
            x = getattr(self, f"conv{index + 1}")(x)
            if ends_unit:
                x = x.add_(carrier)
            opens_unit = (kind == "D" or ends_unit) and variant.layers[index + 1 : depth][:1] == "S"
            if opens_unit:
                carrier = x
            # The carrier is needed again before the ReLU; everything else is computed in place.
            x = F.relu(x) if opens_unit else F.relu_(x)
            if f"c{index + 1}" in wanted:
                features[f"c{index + 1}"] = x
        return features

    def _start_units_as_identity(self) -> None:
        units = sum(self.variant.residual_ends)
        for number, ends_unit in enumerate(self.variant.residual_ends, start=1):
            if ends_unit:
                nn.init.zeros_(getattr(self, f"conv{number}").weight)
                with torch.no_grad():
                    getattr(self, f"conv{number - 1}").weight.mul_(units**-0.5)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every tap."""
        return {
            branch.tap: ShapeSpec(channels=branch.channels, stride=branch.rf.stride)
            for branch in self.variant.branches
        }


@BACKBONE_REGISTRY.register()
def build_lffd_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> LFFDNet:
    """Builds the backbone of the variant that ``MODEL.LFFD`` names or defines.

    A config without ``MODEL.LFFD``, for example of another Detectron2 project, gets 25L8S.
    """
    if "LFFD" not in cfg.MODEL:
        cfg = CfgNode({"MODEL": CfgNode(), "INPUT": CfgNode()})
        add_lffd_config(cfg)
    return LFFDNet(
        variant_from_config(cfg), in_channels=input_shape.channels, init=cfg.MODEL.LFFD.INIT
    )
