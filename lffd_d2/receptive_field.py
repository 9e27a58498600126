"""Receptive-field arithmetic: computes everything about an LFFD variant from its list of layers.

LFFD has no anchor boxes. Every unit of a tapped layer sees one square of the input, its receptive
field (RF). It detects the faces whose size fits the RF and whose box contains the center of the RF.
A variant is therefore defined by its layers, their widths, the tapped layers and the face sizes of
each tap. Everything else (RF size, stride, first center, gray zone, regression divisor, map size)
is computed here.

There are two kinds of layers, both 3x3 convolutions: ``D`` halves the map (stride 2, no padding)
and ``S`` keeps its size (stride 1, padding 1). After a ``D``, the ``S`` layers come in pairs; each
pair is one residual unit. Layers are named ``c1``, ``c2``, ... starting at the image.

Paper: "LFFD: A Light and Fast Face Detector for Edge Devices", https://arxiv.org/abs/1904.10633,
Table 2 and Figure 2. The variants themselves: :mod:`lffd_d2.variants`.

This module needs neither torch nor NumPy.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tabulate import tabulate

__all__ = ["Branch", "ReceptiveField", "Variant", "branch_table"]

_KERNEL = 3


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of a unit along one axis (both axes are equal).

    Attributes:
        size: size in input pixels.
        stride: input pixels between the centers of neighboring units.
        start: center of the first unit, as a pixel index of the input.
    """

    size: int = 1
    stride: int = 1
    start: int = 0

    def after(self, kind: str) -> ReceptiveField:
        """The receptive field after one more ``D`` or ``S`` layer (arXiv 1904.10633, 3.1)."""
        stride, padding = (2, 0) if kind == "D" else (1, 1)
        return ReceptiveField(
            size=self.size + (_KERNEL - 1) * self.stride,
            stride=self.stride * stride,
            start=self.start + ((_KERNEL - 1) // 2 - padding) * self.stride,
        )


@dataclass(frozen=True)
class Branch:
    """One loss branch: a tapped layer and the faces that it detects. Lengths are in input pixels.

    Attributes:
        tap: name of the layer, e.g. ``"c8"``.
        channels: width of that layer.
        rf: its receptive field.
        face_range: minimum and maximum face size, inclusive.
        gray_range: sizes outside ``face_range`` but inside this range are ignored in training.
    """

    tap: str
    channels: int
    rf: ReceptiveField
    face_range: tuple[float, float]
    gray_range: tuple[float, float]

    def divisor(self, reg_norm: str) -> float:
        """The divisor of the regression targets: for ``"scale"`` half the maximum face size
        (released code and weights), for ``"rf"`` half the receptive field (arXiv 1904.10633,
        section 3.4)."""
        if reg_norm == "scale":
            return self.face_range[1] / 2
        if reg_norm == "rf":
            return self.rf.size / 2
        raise ValueError(f'MODEL.LFFD.REG_NORM is "scale" or "rf", not {reg_norm!r}')


@dataclass(frozen=True)
class Variant:
    """The definition of an LFFD network, which is checked when it is created.

    Attributes:
        name: name in messages.
        layers: one letter per layer, ``D`` or ``S``; spaces are ignored.
        widths: output channels of each layer.
        taps: tapped layers in increasing depth, each the end of a residual unit.
        face_ranges: minimum and maximum face size (pixels of the network's input) per tap.
        branch_channels: width of the 1x1 layers of the loss branches.
        gray_margin: relative width of the gray zone on either side of a range.

    Raises:
        ValueError: the parts are inconsistent, or a receptive field is smaller than the faces of
            its branch.

    Warns:
        UserWarning: no branch detects faces of some size between the smallest and the largest, or
            such faces can lie between the receptive-field centers of their branch.
    """

    name: str
    layers: str
    widths: tuple[int, ...]
    taps: tuple[str, ...]
    face_ranges: tuple[tuple[float, float], ...]
    branch_channels: int = 128
    gray_margin: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", "".join(self.layers.split()))
        object.__setattr__(self, "widths", tuple(int(w) for w in self.widths))
        object.__setattr__(self, "taps", tuple(self.taps))
        object.__setattr__(self, "face_ranges", tuple(_as_range(r) for r in self.face_ranges))
        self._check_layers()
        self._check_taps()
        self._check_ranges()

    @cached_property
    def residual_ends(self) -> tuple[bool, ...]:
        """For each layer, whether it ends a residual unit (the second ``S`` of a pair)."""
        ends, run = [], 0
        for kind in self.layers:
            run = 0 if kind == "D" else run + 1
            ends.append(run > 0 and run % 2 == 0)
        return tuple(ends)

    @cached_property
    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Receptive field of every layer, ``{"c1": ..., "c2": ..., ...}``."""
        fields, rf = {}, ReceptiveField()
        for number, kind in enumerate(self.layers, start=1):
            rf = rf.after(kind)
            fields[f"c{number}"] = rf
        return fields

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """The loss branches, shallow to deep."""
        fields = self.receptive_fields
        return tuple(
            Branch(
                tap=tap,
                channels=self.widths[int(tap[1:]) - 1],
                rf=fields[tap],
                face_range=(low, high),
                gray_range=(
                    math.floor((1 - self.gray_margin) * low),
                    math.ceil((1 + self.gray_margin) * high),
                ),
            )
            for tap, (low, high) in zip(self.taps, self.face_ranges)
        )

    def map_sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Height and width of the map of every branch for an input size (0 if the input is too
        small)."""
        sides = (height, width)
        return tuple(tuple(_map_length(s, b.rf.stride) for s in sides) for b in self.branches)

    def depth(self, taps: Sequence[str] | None = None) -> int:
        """Number of layers that must run for these taps, by default all."""
        return max(int(tap[1:]) for tap in (self.taps if taps is None else taps))

    def min_input(self, taps: Sequence[str] | None = None) -> int:
        """Minimum image side, in pixels, at which each of these taps has at least one unit."""
        return 2 ** (self.layers[: self.depth(taps)].count("D") + 1) - 1

    def _check_layers(self) -> None:
        if not self.layers or set(self.layers) - {"D", "S"}:
            raise ValueError(
                f"{self._where('LAYERS')} must be letters D (3x3, stride 2) and S (3x3, stride 1), "
                f'such as "DD SSSSSS DSS", not {self.layers!r}'
            )
        if len(self.widths) != len(self.layers) or min(self.widths) < 1:
            raise ValueError(
                f"{self._where('WIDTHS')} needs one positive width per layer: {len(self.layers)} "
                f"layers, got {list(self.widths)}"
            )
        for stage in self.layers.split("D"):
            if len(stage) % 2:
                raise ValueError(
                    f"{self._where('LAYERS')}: S layers come in pairs, each one residual unit, but "
                    f"{len(stage)} stand in a row in {self.layers!r}"
                )
        if self.layers[0] == "S":
            raise ValueError(f"{self._where('LAYERS')} must begin with D, got {self.layers!r}")
        carrier = 0
        for number, (end, width) in enumerate(zip(self.residual_ends, self.widths), start=1):
            if self.layers[number - 1] == "D":
                carrier = width
            elif end and width != carrier:
                raise ValueError(
                    f"{self._where('WIDTHS')}: c{number} ends a residual unit and is added to a "
                    f"map of {carrier} channels, so its width must be {carrier}, not {width}"
                )
        if self.branch_channels < 1:
            raise ValueError(
                f"{self._where('BRANCH_CHANNELS')} must be positive, got {self.branch_channels}"
            )

    def _check_taps(self) -> None:
        allowed = [f"c{n}" for n, end in enumerate(self.residual_ends, start=1) if end]
        depths = [allowed.index(tap) if tap in allowed else -1 for tap in self.taps]
        if not depths or -1 in depths or depths != sorted(set(depths)):
            raise ValueError(
                f"{self._where('TAPS')} must name ends of residual units in increasing depth, out "
                f"of {allowed}; got {list(self.taps)}"
            )

    def _check_ranges(self) -> None:
        key = self._where("FACE_RANGES")
        if len(self.face_ranges) != len(self.taps):
            raise ValueError(
                f"{key} needs one [min, max] face size per tap: taps {list(self.taps)}, "
                f"got {[list(r) for r in self.face_ranges]}"
            )
        if not 0 <= self.gray_margin < 1:
            raise ValueError(
                f"{self._where('GRAY_MARGIN')} is a fraction of a face range in [0, 1), not "
                f"{self.gray_margin}"
            )
        for branch in self.branches:
            low, high = branch.face_range
            if not 0 < low < high:
                raise ValueError(
                    f"{key}: {branch.tap} has [{low:g}, {high:g}]; 0 < min < max is needed"
                )
            if high > branch.rf.size:
                raise ValueError(
                    f"{key}: {branch.tap} sees {branch.rf.size} pixels, too few for faces of "
                    f"{low:g} to {high:g}; end its range at {branch.rf.size} or tap a deeper layer"
                )
            if low < branch.rf.stride:
                warnings.warn(
                    f"{key}: receptive-field centers of {branch.tap} are {branch.rf.stride} pixels "
                    f"apart, so faces of {low:g} pixels can fall between them",
                    stacklevel=4,
                )
        reached = self.face_ranges[0][1]
        for low, high in self.face_ranges[1:]:
            if low > reached:
                warnings.warn(
                    f"{key}: no branch covers faces between {reached:g} and {low:g} pixels",
                    stacklevel=4,
                )
            reached = max(reached, high)

    def _where(self, key: str) -> str:
        return f"LFFD variant {self.name!r}, MODEL.LFFD.{key}"


def _as_range(value: Sequence[float]) -> tuple[float, float]:
    if len(value) != 2:
        raise ValueError(f"a face range is [min, max] in pixels, got {list(value)}")
    return float(value[0]), float(value[1])


def _map_length(pixels: int, stride: int) -> int:
    for _ in range(stride.bit_length() - 1):
        pixels = max((pixels - _KERNEL) // 2 + 1, 0)
    return pixels


def branch_table(variant: Variant, input_size: int = 640) -> str:
    """The branches as a Markdown table, as in the paper's Table 2, with the sizes of the maps of a
    square input of ``input_size`` pixels."""
    rows = []
    for number, (branch, (_, side)) in enumerate(
        zip(variant.branches, variant.map_sizes(input_size, input_size)), start=1
    ):
        (low, high), (gray_low, gray_high) = branch.face_range, branch.gray_range
        rows.append(
            {
                "branch": number,
                "tap": branch.tap,
                "channels": branch.channels,
                "RF": branch.rf.size,
                "stride": branch.rf.stride,
                "first center": branch.rf.start,
                "face size": f"{low:g}-{high:g}",
                "gray zone": f"{gray_low:g}-{gray_high:g}",
                f"map @{input_size}": side,
                "divisor (scale)": f"{branch.divisor('scale'):g}",
                "divisor (rf)": f"{branch.divisor('rf'):g}",
                "RF / mean face": f"{branch.rf.size / ((low + high) / 2):.1f}",
            }
        )
    return tabulate(rows, "keys", "github", disable_numparse=True)
