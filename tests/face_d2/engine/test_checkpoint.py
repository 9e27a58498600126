from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from face_d2.engine.checkpoint import FaceCheckpointer, load_array_pickle


class Command:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("echo hello",)


def test_round_trip_names_the_last_file(tmp_path: Path) -> None:
    model, copy = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    FaceCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_0000004", iteration=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000004.pth"]
    checkpointer = FaceCheckpointer(copy, str(tmp_path))
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 4
    assert torch.equal(model.weight, copy.weight)


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(3, 2)
    checkpointer = FaceCheckpointer(model, str(tmp_path))
    checkpointer.save("model_final")
    before = (tmp_path / "model_final.pth").read_bytes()

    def half_written(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", half_written)
    for name in ("model_final", "model_0000009"):
        with pytest.raises(OSError, match="No space"):
            checkpointer.save(name)
    assert (tmp_path / "model_final.pth").read_bytes() == before
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert len(list(tmp_path.iterdir())) == 2


def test_files_that_run_code_are_refused(tmp_path: Path) -> None:
    # One checkpointer each: Detectron2's cannot be used again after a failure.
    torch.save({"model": Command()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth is no checkpoint of tensors"):
        FaceCheckpointer(nn.Linear(3, 2)).load(str(tmp_path / "evil.pth"))
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": Command()}))
    with pytest.raises(ValueError, match=r"evil\.pkl.*system, which holds no array"):
        FaceCheckpointer(nn.Linear(3, 2)).load(str(tmp_path / "evil.pkl"))


@pytest.mark.parametrize("content", [b"", b"\x80\x04half", pickle.dumps([1, 2])])
def test_damaged_pickles_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pkl"):
        load_array_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("protocol", [2, 4])
def test_detectron2_pickles_load(tmp_path: Path, protocol: int) -> None:
    """The two forms of Detectron2's own weights: its model zoo's and a Caffe2 backbone's."""
    model = nn.Sequential()
    model.add_module("conv1", nn.Linear(3, 2))
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {"conv1.weight": weight, "conv1.bias": np.zeros(2, np.float32)}
    for name, data in {
        "zoo": {"model": arrays, "__author__": "Detectron2", "step": np.float64(3)},
        "caffe2": {"blobs": {**arrays, "conv1.weight_momentum": weight}},
    }.items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(pickle.dumps(data, protocol))
        loaded = load_array_pickle(path)
        assert set(loaded) == set(data)
    FaceCheckpointer(model).load(str(tmp_path / "zoo.pkl"))
    np.testing.assert_array_equal(model.conv1.weight.detach().numpy(), weight)
    state = FaceCheckpointer(model)._load_file(str(tmp_path / "caffe2.pkl"))
    assert set(state["model"]) == set(arrays)
    assert state["matching_heuristics"]
