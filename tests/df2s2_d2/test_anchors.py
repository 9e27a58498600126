from __future__ import annotations

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform

from df2s2_d2.anchors import decode_maps


def test_decoded_maps_are_the_boxes_of_detectron2_for_its_anchors() -> None:
    """Two images, a map that is not square, weights that are not 1 and deltas beyond the limit."""
    anchors = DefaultAnchorGenerator(
        sizes=[[10.0, 17.0]], aspect_ratios=[[1.0, 1.5]], strides=[8], offset=0.5
    )
    transform = Box2BoxTransform(weights=(10.0, 8.0, 5.0, 4.0))
    deltas = torch.randn(2, 4 * 4, 5, 7, generator=torch.Generator().manual_seed(0)) * 3
    deltas[0, 2, 0, 0] = 1e4  # a width far above the clamp
    (grid,) = anchors([deltas])
    rows = deltas.permute(0, 2, 3, 1).reshape(2, -1, 4)
    expected = torch.stack([transform.apply_deltas(row, grid.tensor) for row in rows])

    boxes = decode_maps(deltas, next(iter(anchors.cell_anchors)), 8, 0.5, transform)

    assert boxes.shape == (2, 5 * 7 * 4, 4)
    torch.testing.assert_close(boxes, expected, rtol=1e-5, atol=1e-4)
