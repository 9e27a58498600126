"""How often a training step of DF2S2 makes the host wait for the GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from helpers.host_waits import host_waits


def waits_of(model: torch.nn.Module, faces_per_image: list[int], side: int = 128) -> Counter[str]:
    """Waits in the losses of one batch, the network's forward pass included."""
    generator = torch.Generator().manual_seed(4)
    inputs = []
    for count in faces_per_image:
        corner = torch.rand(count, 2, generator=generator) * (side - 20)
        sides = 5 + torch.rand(count, 2, generator=generator) * 40
        faces = Instances((side, side))
        faces.gt_boxes = Boxes(torch.cat([corner, (corner + sides).clamp(max=side)], dim=1))
        faces.gt_ignore = torch.arange(count) % 5 == 4
        pixels = torch.rand(3, side, side, generator=generator) * 255
        inputs.append({"image": pixels, "instances": faces})
    model.train()
    images = model.preprocess_image(inputs)
    targets = [item["instances"] for item in inputs]
    with EventStorage(), host_waits() as waits:
        model.losses(images, targets)
    return waits


@pytest.mark.parametrize("faces_per_image", [[1], [3, 0, 7], [40] * 6])
def test_a_step_waits_six_times(
    tiny_model: Callable[..., torch.nn.Module], faces_per_image: list[int]
) -> None:
    """Four times in the matcher, for the positives' places, and in Detectron2's ``get_deltas``.

    The number of images and faces changes nothing. With anchors laid in every step, and masks for
    indices, the same count was 58.
    """
    model = tiny_model()
    once = waits_of(model, faces_per_image)
    for _ in range(2):
        waits = waits_of(model, faces_per_image)
        assert waits == {"aten::nonzero": 4, "tolist": 1, "aten::_local_scalar_dense": 1}
    assert once - waits == {"tensor": 1}  # the table of the anchors


def test_an_iou_loss_adds_torchvisions_own_waits(
    tiny_model: Callable[..., torch.nn.Module],
) -> None:
    """It intersects boxes under a mask, in five places."""
    model = tiny_model("MODEL.DF2S2.BOX_LOSS", "diou", "MODEL.DF2S2.MIN_FACE", 8.0)
    waits_of(model, [3, 7])
    waits = waits_of(model, [3, 7])
    masks = {name: count for name, count in waits.items() if name.endswith("by a mask")}
    assert sum(masks.values()) <= 5
    assert waits - Counter(masks) == {"aten::nonzero": 4, "tolist": 1}


def test_what_waits_is_counted_and_what_does_not_is_not() -> None:
    values, mask = torch.arange(4.0), torch.tensor([True, False, True, True])
    ones, place = torch.ones(4).long(), torch.tensor([0, 1])
    with host_waits() as waits:
        values[place]
        values.masked_fill_(mask, 1.0)
        torch.repeat_interleave(values, ones, output_size=4)
    assert not waits
    with host_waits() as waits:
        values[mask]
        mask.nonzero()
        torch.repeat_interleave(values, ones)
        torch.bincount(ones)
        values.sum().item()
        values.tolist()
        torch.tensor([1.0, 2.0])
    assert len(waits) == 7
    assert set(waits.values()) == {1}
