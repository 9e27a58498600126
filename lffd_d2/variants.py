"""The LFFD variants as data; :mod:`lffd_d2.receptive_field` explains the notation.

Sources: arXiv 1904.10633, Table 2 and Figure 2, and the released LFFD code.
"""

from __future__ import annotations

from dataclasses import replace

from lffd_d2.receptive_field import Variant

__all__ = ["SLIM_VARIANTS", "VARIANTS", "get_variant", "slimmed"]


def _widths(*runs: tuple[int, int]) -> tuple[int, ...]:
    """Expands runs of (width, number of layers)."""
    return tuple(width for width, count in runs for _ in range(count))


_DOUBLING = ((10, 20), (20, 40), (40, 80), (80, 160), (160, 320))

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        # Faces, the paper's network (Table 2); released as face v1.
        Variant(
            name="25L8S",
            layers="DD SSSSSSSS DSSSS DSS DSSSSSS",
            widths=_widths((64, 15), (128, 10)),
            taps=("c8", "c10", "c13", "c15", "c18", "c21", "c23", "c25"),
            face_ranges=(
                (10, 15),
                (15, 20),
                (20, 40),
                (40, 70),
                (70, 110),
                (110, 250),
                (250, 400),
                (400, 560),
            ),
        ),
        # Faces, released as face v2.
        Variant(
            name="20L5S",
            layers="DD SSSSSS DSS DSS DSS DSS",
            widths=_widths((64, 14), (128, 6)),
            taps=("c8", "c11", "c14", "c17", "c20"),
            face_ranges=_DOUBLING,
        ),
        # Heads: face v2 without its last stage.
        Variant(
            name="17L4S",
            layers="DD SSSSSS DSS DSS DSS",
            widths=_widths((64, 14), (128, 3)),
            taps=("c8", "c11", "c14", "c17"),
            face_ranges=_DOUBLING[:4],
        ),
        # Pedestrians.
        Variant(
            name="20L4S",
            layers="DDD SSSSSSSS DSS DSS DSS",
            widths=_widths((64, 11), (128, 9)),
            taps=("c11", "c14", "c17", "c20"),
            face_ranges=((30, 60), (60, 100), (100, 180), (180, 320)),
        ),
        # License plates.
        Variant(
            name="16L3S",
            layers="DDDD SSSSSS DSS DSS",
            widths=_widths((64, 13), (128, 3)),
            taps=("c10", "c13", "c16"),
            face_ranges=((64, 128), (128, 256), (256, 512)),
        ),
        # License plates, with bottlenecks inside the residual units and narrower branches.
        Variant(
            name="16L3S-small",
            layers="DDDD SSSSSS DSS DSS",
            widths=(32, 32, 32, 64, 32, 64, 32, 64, 32, 64, 64, 32, 64, 128, 64, 128),
            taps=("c10", "c13", "c16"),
            face_ranges=((64, 128), (128, 256), (256, 512)),
            branch_channels=64,
        ),
    )
}


def slimmed(variant: Variant, name: str, *, width: float = 1.0, bottleneck: float = 1.0) -> Variant:
    """A cheaper network with the same receptive fields and branches.

    Args:
        width: factor for all widths, including those of the loss branches; rounded to 8.
        bottleneck: additional factor for the first layer of every residual unit, as in the released
            small network for license plates.
    """

    def rounded(value: float) -> int:
        return max(8, 8 * round(value / 8))

    first = (*variant.residual_ends[1:], False)  # a unit is two layers
    widths = tuple(
        rounded(own * width * (bottleneck if opens else 1.0))
        for own, opens in zip(variant.widths, first)
    )
    branch = rounded(variant.branch_channels * width * bottleneck)
    return replace(variant, name=name, widths=widths, branch_channels=branch)


#: Cheaper networks of this project; there are no released weights.
SLIM_VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for base in ("25L8S", "17L4S")
    for variant in (
        slimmed(VARIANTS[base], f"{base}-small", bottleneck=0.5),
        slimmed(VARIANTS[base], f"{base}-half", width=0.5),
    )
}


def get_variant(name: str) -> Variant:
    """Returns the released or slim variant of a name.

    Raises:
        ValueError: there is no variant of this name.
    """
    known = VARIANTS | SLIM_VARIANTS
    if name not in known:
        raise ValueError(
            f"unknown LFFD variant {name!r}; MODEL.LFFD.VARIANT is one of {', '.join(known)}, "
            'or "custom" with MODEL.LFFD.LAYERS, WIDTHS, TAPS and FACE_RANGES set'
        )
    return known[name]
