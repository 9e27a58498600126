from __future__ import annotations

import errno
import pickle
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from face_d2.engine.checkpoint import (
    FaceCheckpointer,
    PathManager,
    load_array_pickle,
    local_weights,
)
from face_d2.modeling.weight_file import read_weight_file
from face_d2.pretrained import PRETRAINED


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


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.pth", b"weights of my network", "is cut or damaged"),
        ("text.safetensors", b"weights of my network", "is cut or damaged"),
        ("cut.pth", None, "is cut or damaged"),
        ("net.onnx", b"x", "tools/predict.py --onnx"),
    ],
)
def test_files_that_are_no_checkpoint(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is None:
        torch.save({"model": nn.Linear(3, 2).state_dict()}, tmp_path / "whole")
        content = (tmp_path / "whole").read_bytes()[:-200]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{words}") as raised:
        FaceCheckpointer(nn.Linear(3, 2)).load(str(tmp_path / name))
    assert "weights_only" not in str(raised.value)  # as torch's own advice has it


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> str:
        raise URLError("Name or service\nnot known")

    monkeypatch.setattr(PathManager, "get_local_path", fail)


R50 = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"


def test_weights_that_cannot_be_fetched_say_what_to_do(no_network: None) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        FaceCheckpointer(nn.Linear(3, 2)).load(R50)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"{R50} cannot be fetched (")
    assert "MODEL.WEIGHTS /path/to/R-50.pkl" in message


def test_a_training_says_so_before_it_starts(no_network: None, tmp_path: Path) -> None:
    from face_d2 import train_net

    words = ["--config-file", "df2s2/df2s2_R50_FFP.yaml", "--num-gpus", "0"]
    words += ["OUTPUT_DIR", str(tmp_path / "run"), "DATASETS.TRAIN", "()", "DATASETS.TEST", "()"]
    with pytest.raises(SystemExit, match=r"R-50\.pkl cannot be fetched") as stopped:
        train_net.main(words)
    assert len(str(stopped.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_resumed_training_does_not_ask_for_its_first_weights(
    no_network: None, tmp_path: Path
) -> None:
    from face_d2 import train_net

    words = ["--config-file", "df2s2/df2s2_R50_FFP.yaml", "--num-gpus", "0", "--resume"]
    args = train_net.parser().parse_args([*words, "OUTPUT_DIR", str(tmp_path)])
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    train_net._fetch_weights(train_net.load_cfg(args), args)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such checkpoint"):
        FaceCheckpointer(nn.Linear(3, 2)).load(str(tmp_path / "none.pth"))
    for read in (load_array_pickle, read_weight_file):
        with pytest.raises(FileNotFoundError, match=r"none\.pth"):
            read(tmp_path / "none.pth")


def test_the_name_of_a_shipped_detector_stands_for_its_file() -> None:
    for name, model in PRETRAINED.items():
        assert local_weights(name) == str(model.weights)


def test_without_a_folder_nothing_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FaceCheckpointer(nn.Linear(3, 2)).save("model_final")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrap", [nn.Module.state_dict, lambda m: dict(m.named_parameters())])
def test_pickles_of_tensors_load(tmp_path: Path, wrap: Callable[[nn.Module], Any]) -> None:
    """Converters of other projects, such as Mask2Former's, write them."""
    model, copy = nn.Linear(3, 2), nn.Linear(3, 2)
    data = {"model": wrap(model), "__author__": "third_party", "matching_heuristics": True}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(data))
    FaceCheckpointer(copy).load(str(tmp_path / "x.pkl"))
    assert torch.equal(model.weight, copy.weight)


def test_files_of_other_projects(tmp_path: Path) -> None:
    model, copy = nn.Linear(3, 2), nn.Linear(3, 2)
    file = tmp_path / "x.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, file)
    FaceCheckpointer(copy).load(str(file))
    assert torch.equal(model.weight, copy.weight)
    for content, message in (
        ({"net": model.state_dict(), "epoch": 3}, r"x\.pth holds net, epoch; expected tensors"),
        ([1, 2], r"x\.pth holds a list; expected tensors"),
        ({"model": model.state_dict(), "args": Namespace()}, r"argparse\.Namespace, .*alone"),
    ):
        torch.save(content, file)
        with pytest.raises(ValueError, match=message):
            FaceCheckpointer(copy).load(str(file))


def test_a_run_that_cannot_be_resumed(tmp_path: Path) -> None:
    """Training would fail in the first step, or go on with a new optimizer."""

    def resume(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        FaceCheckpointer(model, str(tmp_path), trainer=optimizer).resume_or_load("", resume=True)

    small = nn.Linear(3, 2)
    FaceCheckpointer(small, str(tmp_path)).save("model_0000004", iteration=4)
    with pytest.raises(ValueError, match=r"004\.pth is of a run with another network.*weight"):
        resume(nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"004\.pth holds weights but no trainer.*MODEL\.WEIGHTS"):
        resume(small)


def test_what_a_file_lacks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All of it is an error in training, a part of it only in evaluation."""

    def loaded(**state: torch.Tensor) -> FaceCheckpointer:
        torch.save({"model": state}, tmp_path / "x.pth")
        model = nn.Sequential()
        model.add_module("linear", nn.Linear(3, 2))
        model.add_module("norm", nn.BatchNorm1d(2))
        checkpointer = FaceCheckpointer(model)
        checkpointer.load(str(tmp_path / "x.pth"))
        return checkpointer

    sums = {f"norm.{name}": torch.ones(2) for name in ("weight", "bias", "running_mean")}
    whole = {
        "linear.weight": torch.ones(2, 3),
        "linear.bias": torch.ones(2),
        **sums,
        "norm.running_var": torch.ones(2),
    }
    for method in (loaded(**whole).require_all, loaded(**whole).require_some):
        method()  # the counter num_batches_tracked is not missed
    part = loaded(**{**whole, "linear.weight": torch.ones(2, 4)})
    assert part.missing() == ["linear.weight"]
    part.logger.propagate = True
    with caplog.at_level("INFO", logger=part.logger.name):
        part.require_some()
    assert "5 of 6 tensors are from" in caplog.text
    with pytest.raises(ValueError, match=r"x\.pth: not weights .*; 1 parameters.*linear\.weight"):
        part.require_all()
    with pytest.raises(ValueError, match=r"x\.pth holds nothing"):
        loaded(other=torch.ones(2)).require_some()
    fresh = FaceCheckpointer(nn.Linear(3, 2))
    fresh.load("")
    fresh.require_some()
