"""The model zoo: weights by the name of their config, from a cache folder or the network."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo as detectron2_zoo
from detectron2.modeling import build_model
from helpers.commands import status_of
from helpers.file_server import serve

import lffd_d2
from face_d2 import FaceDetector, model_zoo
from face_d2.cli.model_zoo import main, released_table, trained_table
from face_d2.config import get_cfg, get_config_file
from face_d2.model_zoo import Accuracy, Model, ReleasedFile, TrainedHere
from face_d2.pretrained import PRETRAINED
from face_d2.utils.download import checksum
from lffd_d2.mxnet_params import RELEASES

HEAD = "lffd/lffd_17L4S.yaml"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of a small LFFD at a file address, the zoo's entry of that config."""
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("lffd/lffd_16L3S-small.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(3)
    file = tmp_path / "server" / "small weights.pth"
    file.parent.mkdir()
    torch.save({"model": build_model(cfg).state_dict()}, file)
    weights = ReleasedFile(file.as_uri(), checksum(file), "none", file.stat().st_size)
    entry = Model("lffd/lffd_16L3S-small.yaml", "noise", weights)
    monkeypatch.setattr(lffd_d2, "MODELS", (entry,))
    monkeypatch.setenv("FACE_D2_CACHE", str(tmp_path / "cache"))
    return file


def test_names_are_those_of_detectron2(repo: Path) -> None:
    for name in ("get", "get_config", "get_config_file", "get_checkpoint_url"):
        assert callable(getattr(detectron2_zoo, name))
        assert callable(getattr(model_zoo, name))
    assert model_zoo.get_config_file(HEAD) == get_config_file(HEAD)


def test_entries_are_complete() -> None:
    models = model_zoo.models()
    assert {m.weights.checksum for m in models.values() if isinstance(m.weights, ReleasedFile)} == {
        f"git-blob:{blob}" for blob in RELEASES
    }
    for name, model in models.items():
        assert model.config == name or name in PRETRAINED
        cfg = model_zoo.get_config(name)
        assert cfg.MODEL.META_ARCHITECTURE in ("DF2S2", "LFFD")
        if isinstance(model.weights, ReleasedFile):
            assert model.weights.url.startswith("https://")
            assert model.weights.license
            assert model_zoo.get_checkpoint_url(name) == model.weights.url
        if model.accuracy:
            assert 0 < model.accuracy.hard <= max(model.accuracy.medium, model.accuracy.easy) <= 100
            assert model.accuracy.protocol


def test_page_has_the_tables(repo: Path) -> None:
    page = (repo / "docs" / "model_zoo.md").read_text(encoding="utf-8")
    tables = re.findall(r"<!-- \w+: tools/model_zoo.py .*? -->\n(.*?)\n<!-- end -->", page, re.S)
    assert tables == [released_table(), trained_table()], "see tools/model_zoo.py --markdown"
    assert "--output head_20L5S.pth" in tables[1]  # a row says how to make what it starts from
    for blob, release in RELEASES.items():
        (row,) = (line for line in tables[0].splitlines() if blob in line)
        assert f"lffd_{release.variant}.yaml`" in row
        assert f"`{Path(release.path).name}`" in row
        assert f"| {release.license} |" in row
        assert release.repository in page
        assert f"`{release.commit[:7]}`" in page


def test_figures_measured_here_are_in_the_experiments(repo: Path) -> None:
    text = (repo / "docs" / "experiments.md").read_text(encoding="utf-8")
    plain = re.sub(r" \[[^]]*\]", "", text).replace(" | ", " / ")
    for model in model_zoo.models().values():
        if model.accuracy and model.accuracy.measured_here:
            assert str(model.accuracy) in plain, model.config


def test_commands_and_files_of_trained_models(repo: Path) -> None:
    for model in model_zoo.models().values():
        if not isinstance(model.weights, TrainedHere):
            continue
        folder = Path(model.weights.file).parent
        assert Path(model.weights.file).name == "model_final.pth"
        if model.weights.command.startswith("make demo"):
            assert f"quick/{folder.name}_synth.yaml" == model.config
            assert "output/demo" in (repo / "tools" / "demo.py").read_text(encoding="utf-8")
        else:
            assert f"configs/{model.config}" in model.weights.command
            assert Path(model_zoo.get_config(model.config).OUTPUT_DIR) == folder


@pytest.mark.usefixtures("no_network")
def test_nothing_is_fetched_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (model_zoo.get_checkpoint_file, partial(model_zoo.get, trained=True)):
        with pytest.raises(FileNotFoundError, match=r"not in the cache.*download=True.*https://"):
            call(HEAD, cache=tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"output/demo/df2s2/model_final.pth.*make demo"):
        model_zoo.get_checkpoint_file("quick/df2s2_synth.yaml", download=True)
    with pytest.raises(ValueError, match="not published; train them: make demo BUDGET=long"):
        model_zoo.get_checkpoint_url("quick/df2s2_synth.yaml")
    with pytest.raises(
        ValueError, match=r"df2s2-lite0 ships with the package; get_checkpoint_file"
    ):
        model_zoo.get_checkpoint_url("df2s2-lite0")
    with pytest.raises(ValueError, match=r"starts from detectron2://ImageNet.*download=True"):
        model_zoo.get("df2s2/df2s2_R50_FFP.yaml")
    with pytest.raises(ValueError, match=r"no weights for 'lffd/lffd_9L'; there are for: .*17L4S"):
        model_zoo.get_checkpoint_file("lffd/lffd_9L")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_network")
def test_a_checkpoint_of_a_command_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(model_zoo.find("quick/lffd_synth").weights.file)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert model_zoo.get_checkpoint_file("quick/lffd_synth.yaml") == str(file)


def test_download_then_offline(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "lffd/lffd_16L3S-small"
    model = model_zoo.get(name, trained=True, device="cpu", download=True)
    assert model.training
    assert model.device.type == "cpu"
    expected = torch.load(published, weights_only=True)["model"]
    shutil.rmtree(published.parent)
    offline = model_zoo.get(name, trained=True)
    for other in (model.state_dict(), offline.state_dict()):
        assert all(torch.equal(other[key], value) for key, value in expected.items())
    checkpoint = model_zoo.get_config(name, trained=True).MODEL.WEIGHTS
    assert checkpoint == model_zoo.get_checkpoint_file(name)
    detector = FaceDetector.from_config(f"{name}.yaml", checkpoint, device="cpu")
    assert detector.backend.spec.config == "lffd_16L3S-small"


def test_untrained_is_what_training_starts_from(published: Path) -> None:
    name = "lffd/lffd_16L3S-small.yaml"
    torch.manual_seed(5)
    model = model_zoo.get(name, device="cpu")
    trained = torch.load(published, weights_only=True)["model"]
    first = "backbone.conv1.weight"
    assert not torch.equal(model.state_dict()[first], trained[first])
    assert model_zoo.get_config(name).MODEL.WEIGHTS == ""


def test_from_a_web_server(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (entry,) = lffd_d2.MODELS
    with serve(published.read_bytes()) as server:
        weights = replace(entry.weights, url=server.url)
        monkeypatch.setattr(lffd_d2, "MODELS", (replace(entry, weights=weights),))
        file = model_zoo.get_checkpoint_file(entry.config, download=True)
        assert Path(file).name == "weights.bin"
        server.content = b"changed"
        assert model_zoo.get_checkpoint_file(entry.config, download=True) == file
    assert server.requests == [""]


def test_wrong_checksum_is_an_error(published: Path, tmp_path: Path) -> None:
    name, cache = "lffd/lffd_16L3S-small.yaml", tmp_path / "cache" / "models"
    published.write_bytes(published.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="not the expected file"):
        model_zoo.get_checkpoint_file(name, download=True)
    assert not list(cache.glob("*.pth"))
    shutil.copy(published, cache)  # put there by hand, and still not the right one
    with pytest.raises(ValueError, match="not the expected file"):
        model_zoo.get(name, trained=True)


def test_conversion_on_the_way(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Converted once, whole or not at all."""
    calls: list[str] = []

    def convert(source: Path, output: Path) -> None:
        calls.append(source.name)
        output.write_bytes(source.read_bytes()[: 10 if len(calls) == 1 else None])
        if len(calls) == 1:
            raise OSError("the disk is full")

    (entry,) = lffd_d2.MODELS
    weights = replace(entry.weights, convert=convert)
    monkeypatch.setattr(lffd_d2, "MODELS", (replace(entry, weights=weights),))
    with pytest.raises(OSError, match="disk is full"):
        model_zoo.get_checkpoint_file(entry.config, download=True)
    for _ in range(2):
        file = Path(model_zoo.get_checkpoint_file(entry.config))
    assert file.read_bytes() == published.read_bytes()
    assert file.name == f"lffd_16L3S-small-{entry.weights.checksum[7:15]}.pth"
    assert len(calls) == 2


@pytest.mark.usefixtures("no_network")
def test_the_released_head_weights_work_offline(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python of docs/model_zoo.md, with the file put into the cache by hand."""
    cache = tmp_path / "cache" / "models"
    cache.mkdir(parents=True)
    (source,) = (test_data / "lffd").glob("head_10_160_17L_*.params")
    shutil.copy(source, cache / model_zoo.find(HEAD).weights.name)
    monkeypatch.setenv("FACE_D2_CACHE", str(tmp_path / "cache"))
    assert model_zoo.find(HEAD).weights.size == source.stat().st_size
    page = (Path(__file__).parents[2] / "docs" / "model_zoo.md").read_text(encoding="utf-8")
    (python,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    names: dict[str, object] = {}
    exec(compile(python, "docs/model_zoo.md", "exec"), names)
    assert Path(names["cfg"].MODEL.WEIGHTS).name == "lffd_17L4S-e25f3907.pth"
    result = names["detector"].detect(test_data / "photos" / "lffd_debug_test3.jpg")
    assert len(result.boxes) > 5


def test_command(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], repo: Path
) -> None:
    assert main(["--markdown"]) == 0
    assert released_table() in capsys.readouterr().out
    assert main([]) == 0
    for_people = capsys.readouterr().out
    assert all(name in for_people for name in model_zoo.models())
    assert "https://" not in for_people
    name = "lffd/lffd_16L3S-small.yaml"
    assert main([name]) == 1
    assert "--download" in capsys.readouterr().err
    assert main([name, "--download", "--cache", str(tmp_path / "own")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "own" / published.name)
    assert main([name, "--cache", str(tmp_path / "own")]) == 0
    for words, message in (
        (["--download"], "--download and --cache need a NAME"),
        (["--markdown", name], "--markdown lists all models; leave out NAME"),
    ):
        assert status_of(main, words) == 2
        assert message in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "-W", "ignore", repo / "tools" / "model_zoo.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert HEAD in done.stdout


def test_figures_read_as_the_field_writes_them() -> None:
    assert str(Accuracy(91.0, 88.1, 78.0, "-", False)) == "91.0 / 88.1 / 78.0"
