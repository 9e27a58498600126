"""Receptive-field arithmetic and the released variants against the published tables."""

from __future__ import annotations

import re

import pytest

from lffd_d2.receptive_field import ReceptiveField, Variant, branch_table
from lffd_d2.variants import SLIM_VARIANTS, VARIANTS, get_variant, slimmed

# tap, channels, RF, stride, first center, face range, gray range; then the side of the training
# input and the sides of its maps. From the paper's Table 2 and the released code.
PUBLISHED = {
    "25L8S": (
        [
            ("c8", 64, 55, 4, 3, (10, 15), (9, 17)),
            ("c10", 64, 71, 4, 3, (15, 20), (13, 22)),
            ("c13", 64, 111, 8, 7, (20, 40), (18, 44)),
            ("c15", 64, 143, 8, 7, (40, 70), (36, 77)),
            ("c18", 128, 223, 16, 15, (70, 110), (63, 122)),
            ("c21", 128, 383, 32, 31, (110, 250), (99, 275)),
            ("c23", 128, 511, 32, 31, (250, 400), (225, 441)),
            ("c25", 128, 639, 32, 31, (400, 560), (360, 616)),
        ],
        640,
        [159, 159, 79, 79, 39, 19, 19, 19],
    ),
    "20L5S": (
        [
            ("c8", 64, 55, 4, 3, (10, 20), (9, 22)),
            ("c11", 64, 95, 8, 7, (20, 40), (18, 44)),
            ("c14", 64, 175, 16, 15, (40, 80), (36, 88)),
            ("c17", 128, 335, 32, 31, (80, 160), (72, 176)),
            ("c20", 128, 655, 64, 63, (160, 320), (144, 352)),
        ],
        640,
        [159, 79, 39, 19, 9],
    ),
    "17L4S": (
        [
            ("c8", 64, 55, 4, 3, (10, 20), (9, 22)),
            ("c11", 64, 95, 8, 7, (20, 40), (18, 44)),
            ("c14", 64, 175, 16, 15, (40, 80), (36, 88)),
            ("c17", 128, 335, 32, 31, (80, 160), (72, 176)),
        ],
        256,
        [63, 31, 15, 7],
    ),
    "20L4S": (
        [
            ("c11", 64, 143, 8, 7, (30, 60), (27, 66)),
            ("c14", 128, 223, 16, 15, (60, 100), (54, 111)),
            ("c17", 128, 383, 32, 31, (100, 180), (90, 199)),
            ("c20", 128, 703, 64, 63, (180, 320), (162, 352)),
        ],
        480,
        [59, 29, 14, 6],
    ),
    "16L3S": (
        [
            ("c10", 64, 223, 16, 15, (64, 128), (57, 141)),
            ("c13", 64, 383, 32, 31, (128, 256), (115, 282)),
            ("c16", 128, 703, 64, 63, (256, 512), (230, 564)),
        ],
        640,
        [39, 19, 9],
    ),
}
PUBLISHED["16L3S-small"] = PUBLISHED["16L3S"]


@pytest.mark.parametrize("name", VARIANTS)
def test_branches_equal_published_tables(name: str) -> None:
    branches, input_size, map_sides = PUBLISHED[name]
    variant = get_variant(name)
    computed = [
        (b.tap, b.channels, b.rf.size, b.rf.stride, b.rf.start, b.face_range, b.gray_range)
        for b in variant.branches
    ]
    assert computed == branches
    assert variant.map_sizes(input_size, input_size) == tuple((s, s) for s in map_sides)


@pytest.mark.parametrize("name", VARIANTS)
def test_printed_table_holds_the_same_figures(name: str) -> None:
    branches, input_size, map_sides = PUBLISHED[name]
    lines = branch_table(get_variant(name), input_size).splitlines()[2:]
    for line, branch, side in zip(lines, branches, map_sides, strict=True):
        numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", line)]
        channels, size, stride, start, low, high, gray_low, gray_high = numbers[2:10]
        assert (channels, size, stride, start) == branch[1:5]
        assert ((low, high), (gray_low, gray_high)) == branch[5:7]
        assert numbers[10:13] == [side, high / 2, size / 2]
        assert numbers[13] == pytest.approx(size / ((low + high) / 2), abs=0.05)


def test_maps_of_other_inputs() -> None:
    variant = get_variant("25L8S")
    strides = [4, 8, 16, 32]
    for size, sides in ((480, [119, 59, 29, 14]), (256, [63, 31, 15, 7]), (128, [31, 15, 7, 3])):
        computed = {b.rf.stride: m for b, m in zip(variant.branches, variant.map_sizes(size, 640))}
        assert [computed[s][0] for s in strides] == sides
    assert variant.map_sizes(2, 640)[0] == (0, 159)


def test_every_layer_has_a_receptive_field() -> None:
    fields = get_variant("20L5S").receptive_fields
    assert fields["c1"] == ReceptiveField(size=3, stride=2, start=1)
    assert fields["c2"] == ReceptiveField(size=7, stride=4, start=3)
    assert list(fields) == [f"c{n}" for n in range(1, 21)]


def test_least_input_leaves_one_unit_of_the_deepest_map() -> None:
    for variant in VARIANTS.values():
        side = variant.min_input()
        assert variant.map_sizes(side, side)[-1] == (1, 1)
        assert variant.map_sizes(side - 1, side - 1)[-1] == (0, 0)
    assert get_variant("20L5S").min_input(["c8", "c11"]) == 15


CUSTOM = {
    "name": "custom",
    "layers": "DD SS DSS",
    "widths": (8, 8, 4, 8, 16, 4, 16),
    "taps": ("c4", "c7"),
    "face_ranges": ((10, 20), (20, 40)),
}


def test_a_custom_variant_is_computed_like_the_released_ones() -> None:
    first, second = Variant(**CUSTOM).branches
    assert (first.rf, first.channels) == (ReceptiveField(23, 4, 3), 8)
    assert (second.rf, second.channels) == (ReceptiveField(63, 8, 7), 16)
    assert (first.divisor("scale"), first.divisor("rf")) == (10, 11.5)


def test_the_gray_margin_is_free() -> None:
    variant = Variant(**CUSTOM, gray_margin=0.25)
    assert [b.gray_range for b in variant.branches] == [(7, 25), (15, 50)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": "DD SX DSS"}, "LAYERS must be letters"),
        ({"layers": ""}, "LAYERS must be letters"),
        ({"layers": "SSDDDSS"}, "must begin with D"),
        ({"layers": "DDSSSDS"}, "S layers come in pairs"),
        ({"widths": (8, 8)}, "one positive width per layer"),
        ({"widths": (8, 8, 4, 0, 16, 4, 16)}, "one positive width per layer"),
        ({"widths": (8, 8, 4, 6, 16, 4, 16)}, "c4 ends a residual unit.*must be 8, not 6"),
        ({"taps": ()}, "TAPS must name"),
        ({"taps": ("c3", "c7")}, "TAPS must name"),
        ({"taps": ("c7", "c4")}, "increasing depth"),
        ({"face_ranges": ((10, 20),)}, "per tap"),
        ({"face_ranges": ((10, 20, 30), (20, 40))}, "min, max"),
        ({"face_ranges": ((20, 10), (20, 40))}, "min < max"),
        ({"face_ranges": ((10, 20), (20, 64))}, "c7 sees 63 pixels, too few for faces"),
        ({"gray_margin": 1.0}, "GRAY_MARGIN"),
        ({"branch_channels": 0}, "BRANCH_CHANNELS"),
    ],
)
def test_a_contradiction_is_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Variant(**{**CUSTOM, **change})


def test_sizes_no_branch_answers_for_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="no branch covers faces between 18 and 20"):
        Variant(**{**CUSTOM, "face_ranges": ((10, 18), (20, 40))})


def test_faces_smaller_than_the_stride_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="centers of c4 are 4 pixels apart"):
        Variant(**{**CUSTOM, "face_ranges": ((3, 20), (20, 40))})


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown LFFD variant '8L1S'.*25L8S.*custom"):
        get_variant("8L1S")


def test_an_unknown_divisor_is_named() -> None:
    with pytest.raises(ValueError, match="REG_NORM"):
        get_variant("20L5S").branches[0].divisor("anchor")


@pytest.mark.parametrize("name", SLIM_VARIANTS)
def test_slim_variants_see_what_their_bases_see(name: str) -> None:
    slim, base = get_variant(name), get_variant(name.split("-")[0])
    assert slim.name == name
    for own, other in zip(slim.branches, base.branches, strict=True):
        assert (own.tap, own.rf, own.face_range) == (other.tap, other.rf, other.face_range)
    assert slim.map_sizes(480, 640) == base.map_sizes(480, 640)


def test_slim_widths() -> None:
    """17L4S is 14 layers of 64 channels, then 3 of 128; units are (3, 4), (5, 6), (7, 8), ..."""
    assert get_variant("17L4S-half").widths == (32,) * 14 + (64,) * 3
    assert get_variant("17L4S-half").branch_channels == 64
    small = get_variant("17L4S-small")
    assert small.widths == (64, 64, *[32, 64] * 3, *[64, 32, 64] * 2, 128, 64, 128)
    assert small.branch_channels == 64
    thin = slimmed(VARIANTS["17L4S"], "thin", width=0.3)
    assert set(thin.widths) == {16, 40}  # 19.2 and 38.4, in eights
    assert set(slimmed(VARIANTS["17L4S"], "least", width=0.01).widths) == {8}
