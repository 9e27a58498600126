"""The loss branches of LFFD: separate 1x1 convolutions on every tap.

Paper: https://arxiv.org/abs/1904.10633, Figure 2 ("loss branch").
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from lffd_d2.backbone import init_conv
from lffd_d2.receptive_field import Branch, Variant

__all__ = ["LFFDHead", "LossBranch"]


class LossBranch(nn.Module):
    """Classifier and box regressor of one tap: a shared 1x1 layer, then two 1x1 layers for each.

    Args:
        in_channels: width of the tap.
        channels: width of the hidden layers.
        init: "xavier" or "fixup" (the outputs start at zero), see :class:`LFFDNet`.
        prior_prob: initial p(face), set by the bias of the score layer as in RetinaNet (arXiv
            1708.02002, section 4.1); 0.5 is a bias of zero.

    Raises:
        ValueError: ``init`` is unknown, or ``prior_prob`` is not between 0 and 1.
    """

    def __init__(
        self, in_channels: int, channels: int, init: str = "xavier", prior_prob: float = 0.5
    ) -> None:
        super().__init__()
        if not 0 < prior_prob < 1:
            raise ValueError(
                f"MODEL.LFFD.PRIOR_PROB must lie between 0 and 1, both excluded, got {prior_prob}"
            )
        self.shared = nn.Conv2d(in_channels, channels, 1)
        self.score_hidden = nn.Conv2d(channels, channels, 1)
        self.score = nn.Conv2d(channels, 2, 1)
        self.box_hidden = nn.Conv2d(channels, channels, 1)
        self.box = nn.Conv2d(channels, 4, 1)
        for conv in self.children():
            init_conv(conv, init)
        if init == "fixup":
            nn.init.zeros_(self.score.weight)
            nn.init.zeros_(self.box.weight)
        # Softmax over two logits is a sigmoid of their difference.
        nn.init.constant_(self.score.bias[1:], math.log((1 - prior_prob) / prior_prob))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From a tap (N, C, h, w): logits (N, 2, h, w), channel 0 face, channel 1 background, and
        box offsets (N, 4, h, w) in units of the branch's divisor."""
        x = F.relu_(self.shared(x))
        logits = self.score(F.relu_(self.score_hidden(x)))
        return logits, self.box(F.relu_(self.box_hidden(x)))


class LFFDHead(nn.ModuleDict):
    """All loss branches, by tap; for the other arguments see :class:`LossBranch`."""

    def __init__(
        self,
        branches: Iterable[Branch],
        channels: int,
        init: str = "xavier",
        prior_prob: float = 0.5,
    ) -> None:
        super().__init__(
            {b.tap: LossBranch(b.channels, channels, init, prior_prob) for b in branches}
        )

    @classmethod
    def for_variant(
        cls, variant: Variant, init: str = "xavier", prior_prob: float = 0.5
    ) -> LFFDHead:
        """The branches of a variant."""
        return cls(variant.branches, variant.branch_channels, init, prior_prob)

    def forward(self, features: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Runs the branches whose taps (N, C, h, w) are given, by name; returns the logits
        (N, 2, h, w) and offsets (N, 4, h, w) of each, in the same order."""
        return {tap: self[tap](feature) for tap, feature in features.items()}
