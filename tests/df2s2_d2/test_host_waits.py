"""How often a training step of DF2S2 makes the host wait for the GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from references.host_waits import HostWaits


def step_of(model: torch.nn.Module, faces_per_image: list[int], side: int = 128) -> HostWaits:
    """Counts in the losses of one batch, the network's forward pass included."""
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
    with EventStorage(), HostWaits() as waits:
        model.losses_on(images, targets)
    return waits


@pytest.mark.parametrize("faces_per_image", [[1], [3, 0, 7], [40] * 6])
def test_a_step_reads_six_results(
    tiny_model: Callable[..., torch.nn.Module], faces_per_image: list[int]
) -> None:
    """Four in the matcher, one for the positives, one in Detectron2's ``get_deltas``.

    Whatever the number of images and faces. Before grids were kept and masks avoided, 48 results
    were read and 5 tensors made of Python numbers in every step.
    """
    model = tiny_model()
    first = step_of(model, faces_per_image)
    assert first.copies == {"tensor": 1}  # the anchors
    for _ in range(2):
        waits = step_of(model, faces_per_image)
        assert waits.reads == {"nonzero": 4, "numpy": 1, "_local_scalar_dense": 1}
        assert not waits.copies


def test_an_iou_loss_adds_torchvisions_own_waits(
    tiny_model: Callable[..., torch.nn.Module],
) -> None:
    """It intersects boxes under a mask, five times."""
    model = tiny_model("MODEL.DF2S2.BOX_LOSS", "diou", "MODEL.DF2S2.MIN_FACE", 8.0)
    step_of(model, [3, 7])
    waits = step_of(model, [3, 7])
    masks = waits.reads.pop("index by mask", 0) + waits.reads.pop("index_put_ by mask", 0)
    assert masks <= 5
    assert waits.reads == {"nonzero": 4, "numpy": 1}
    assert not waits.copies


def test_the_counter_sees_what_waits() -> None:
    values, mask = torch.arange(4.0), torch.tensor([True, False, True, True])
    with HostWaits() as waits:
        values[mask]
        values[mask] = torch.ones(3)
        values[mask] = 0  # one number: nothing to wait for
        values[torch.tensor([0, 1])]
        mask.nonzero()
        torch.masked_select(values, mask)
        torch.repeat_interleave(values, values.long())
        torch.repeat_interleave(values, torch.ones(4).long(), output_size=4)
        torch.bincount(values.long())
        float(values[0])
        bool(mask.any())
        values.tolist()
        values.sum().item()
        torch.tensor([1.0, 2.0])
    assert waits.reads == {
        "index by mask": 1,
        "index_put_ by mask": 1,
        "nonzero": 1,
        "masked_select": 1,
        "repeat_interleave": 1,
        "bincount": 1,
        "_local_scalar_dense": 3,
        "tolist": 1,
    }
    assert waits.copies == {"tensor": 2}
