"""Which faces anchors cover: by hand, against plain loops, and on the network's own grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import coverage_reference

from df2s2_d2.anchors import AnchorGrid
from df2s2_d2.coverage import AnchorCoverage
from face_d2.config import get_cfg, get_config_file
from face_d2.modeling.coverage_rule import build_coverage_rule


def rule_of(*overrides: object, base: str = "quick/df2s2_synth.yaml") -> AnchorCoverage:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(base))
    small = ["MODEL.DF2S2.CONV_DIM", 8, "MODEL.FFP.OUT_CHANNELS", 8, "MODEL.DF2S2.NORM", ""]
    cfg.merge_from_list([*small, *overrides])
    return build_coverage_rule(cfg, training=False)


@pytest.fixture(scope="module")
def one_shape() -> AnchorCoverage:
    """One anchor a cell: a square of 4 strides round the cell's center."""
    sizes = [[16.0], [32.0], [64.0], [128.0], [256.0], [512.0]]
    return rule_of(
        "MODEL.ANCHOR_GENERATOR.SIZES", sizes, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0]]
    )


def judge(rule: AnchorCoverage, *boxes: tuple[float, ...], size: int = 64) -> Any:
    found = rule(np.array(boxes), np.zeros(len(boxes), dtype=bool), (size, size))
    return found.outcomes.tolist(), found.positives.tolist()


def test_by_hand(one_shape: AnchorCoverage) -> None:
    # Cell (8, 8) of stride 4 has its center at 34, 34 and its anchor at 26 to 42. A face there has
    # IoU 1 with it, 12 x 16 / (2 x 256 - 192) = 0.6 with four neighbors, 144 / 368 with the
    # diagonal ones.
    assert judge(one_shape, (26, 26, 42, 42)) == ([0], [[5, 0, 0, 0, 0, 0]])
    # 8 x 8 pixels: at most 64 / 256 = 0.25, with all anchors that hold it: 3 x 3 of them.
    assert judge(one_shape, (30, 30, 38, 38)) == ([1], [[9, 0, 0, 0, 0, 0]])
    # 7 x 7 pixels: at most 49 / 256 = 0.19.
    assert judge(one_shape, (30, 30, 37, 37)) == ([2], [[0] * 6])
    # 32 x 32 pixels on the anchor of cell (4, 4) of stride 8.
    assert judge(one_shape, (20, 20, 52, 52)) == ([0], [[0, 5, 0, 0, 0, 0]])


def test_low_quality_matches_can_be_off() -> None:
    rule = rule_of("MODEL.DF2S2.LOW_QUALITY_MIN_IOU", 1.0)
    assert rule.covered_by == ("IoU >= 0.5", "low quality (off)")
    assert judge(rule, (30, 30, 38, 38))[0] == [2]


def test_small_anchors_own_the_faces_that_the_others_do_not_reach() -> None:
    face = (31.0, 31.0, 41.0, 43.0)  # 10 x 12 px
    usual = rule_of(base="df2s2/df2s2_R50_FFP.yaml")
    small = rule_of(base="df2s2/df2s2_R50_FFP_small_anchors.yaml")
    assert judge(usual, face)[0] == [1]
    assert judge(small, face)[0] == [0]
    assert len(small._grid((64, 64)).boxes) == len(usual._grid((64, 64)).boxes)


def test_faces_below_min_face_own_nothing(one_shape: AnchorCoverage) -> None:
    rule = rule_of("MODEL.DF2S2.MIN_FACE", 9.0)
    assert judge(rule, (30, 30, 38, 38)) == ([2], [[0] * 6])
    assert judge(rule, (30, 30, 38, 39))[0] != [2]


def test_an_anchor_answers_for_one_face(one_shape: AnchorCoverage) -> None:
    # Both faces have IoU above 0.5 with the anchor at 26 to 42; it belongs to the first, and the
    # second takes what is left to it as a low-quality match.
    strict = rule_of(
        "MODEL.ANCHOR_GENERATOR.SIZES",
        [[16.0], [32.0], [64.0], [128.0], [256.0], [512.0]],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
        [[1.0]],
        "MODEL.DF2S2.LOW_QUALITY_MIN_IOU",
        1.0,
    )
    near = (28, 28, 40, 40)  # 144 / 256 with that anchor, less with every other
    assert judge(strict, near)[0] == [0]
    assert judge(strict, (26, 26, 42, 42), near)[0] == [0, 2]
    assert judge(one_shape, (26, 26, 42, 42), near)[0] == [0, 1]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(1, 6))
    coordinate, side = st.integers(-10, 120).map(lambda v: v / 2), st.integers(4, 110)
    rows = [
        (x, y, x + w / 2, y + h / 2)
        for x, y, w, h in (
            (draw(coordinate), draw(coordinate), draw(side), draw(side)) for _ in range(count)
        )
    ]
    ignore = [draw(st.booleans()) for _ in range(count)]
    return np.array(rows), np.array(ignore)


@settings(max_examples=12)
@given(scenes())
def test_equals_plain_loops(one_shape: AnchorCoverage, scene: tuple) -> None:
    boxes, ignore = scene
    size = (50, 61)
    found = one_shape(boxes, ignore, size)
    grid = one_shape._grid(size)
    outcomes, positives = coverage_reference.anchor_coverage(
        grid.boxes.numpy(), grid.levels.numpy(), boxes, ignore, 0.4, 0.5, 0.2
    )
    assert found.positives.tolist() == positives
    assert found.outcomes[~ignore].tolist() == np.array(outcomes)[~ignore].tolist()


@pytest.mark.parametrize("base", ["quick/df2s2_synth.yaml", "quick/retinanet_synth.yaml"])
@pytest.mark.parametrize("size", [(64, 64), (65, 97), (130, 201)])
def test_grid_is_the_networks(
    tiny_model: Callable[..., Any], base: str, size: tuple[int, int]
) -> None:
    """The maps that the network makes of an image have the cells that the rule assumes."""
    model = tiny_model(base=base).eval()
    divisor = max(model.size_divisibility, 1)
    padded = [-(-side // divisor) * divisor for side in size]
    with torch.no_grad():
        maps = model.forward_maps(torch.zeros(1, 3, *padded))[::2]
    expected = AnchorGrid.build(
        list(model.anchor_generator.cell_anchors),
        model.strides,
        model.anchor_generator.offset,
        [tuple(m.shape[-2:]) for m in maps],
    )
    assert torch.equal(rule_of(base=base)._grid(size).boxes, expected.boxes)
