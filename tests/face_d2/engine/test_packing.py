"""Batches on their way from the workers."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances

from face_d2.engine.packing import PackedBatch


class Named(torch.Tensor):
    """A tensor that is more than its values."""


def item(faces: int, side: int) -> dict[str, Any]:
    target = Instances((side, side))
    target.gt_boxes = Boxes(torch.rand(faces, 4))
    target.gt_ignore = torch.rand(faces) < 0.5
    image = torch.randint(256, (side, side + 1, 3), dtype=torch.uint8).permute(2, 0, 1)
    return {
        "image": image,
        "instances": target,
        "file_name": f"{faces}.jpg",
        "scale": torch.rand(()),
    }


def test_a_batch_comes_back_with_one_tensor_per_type() -> None:
    torch.manual_seed(0)
    batch = [item(3, 8), item(0, 5), item(7, 9)]
    batch[0]["named"] = torch.ones(2).as_subclass(Named)
    packed = pickle.loads(pickle.dumps(PackedBatch(batch)))
    assert {dtype: tensor.dim() for dtype, tensor in packed.tensors.items()} == {
        "torch.uint8": 1,
        "torch.float32": 1,
        "torch.bool": 1,
    }
    found = packed.unpack()
    assert type(found[0]["named"]) is Named
    for one, other in zip(batch, found):
        assert one.keys() == other.keys()
        assert one["file_name"] == other["file_name"]
        assert one["instances"].image_size == other["instances"].image_size
        for key in ("image", "scale"):
            assert torch.equal(one[key], other[key])
            assert one[key].dtype == other[key].dtype
        for key in ("gt_boxes", "gt_ignore"):
            a, b = (getattr(x["instances"], key) for x in (one, other))
            assert type(a) is type(b)
            assert torch.equal(*(x.tensor if key == "gt_boxes" else x for x in (a, b)))
    start = packed.tensors["torch.uint8"].data_ptr()
    assert found[1]["image"].data_ptr() == start + batch[0]["image"].numel()


@pytest.mark.parametrize(
    "special",
    [
        torch.ones(2, requires_grad=True),
        torch.eye(3).to_sparse(),
        torch.nn.Parameter(torch.ones(3)),
    ],
    ids=["requires grad", "sparse", "parameter"],
)
def test_tensors_of_special_kinds_keep_what_they_are(special: torch.Tensor) -> None:
    (found,) = PackedBatch([{"special": special, "plain": torch.ones(4)}]).unpack()
    kept = found["special"]
    for key in ("layout", "dtype", "requires_grad", "is_leaf"):
        assert getattr(kept, key) == getattr(special, key), key
    assert type(kept) is type(special)
    a, b = (tensor.to_dense().detach() for tensor in (kept, special))
    assert torch.equal(a, b)


def test_what_is_pinned_is_the_few_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Size] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.shape)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    packed = PackedBatch([item(3, 8), item(2, 8)])
    assert packed.pin_memory() is packed
    assert sorted(pinned) == [(5,), (2 + 5 * 4,), (2 * 3 * 8 * 9,)]
