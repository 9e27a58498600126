"""Where a model is changed to channels last."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from face_d2.modeling.layout import use_fast_layout


@pytest.mark.parametrize(
    ("device", "precision", "last"),
    [
        ("cpu", None, True),
        ("cpu", torch.bfloat16, True),
        ("meta", None, False),  # stands for a GPU
        ("meta", torch.bfloat16, True),
        ("meta", torch.float16, True),
    ],
)
def test_the_layout_follows_the_device_and_the_precision(
    device: str, precision: torch.dtype | None, last: bool
) -> None:
    model = nn.Conv2d(3, 4, 3, device=device)
    use_fast_layout(model, precision)
    assert model.weight.is_contiguous(memory_format=torch.channels_last) is last
