"""The benchmark's command on a tiny network: rows, reasons, files."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tables import unpadded
from PIL import Image

from face_d2.analysis.benchmark import measure
from face_d2.analysis.benchmark.routes import file_routes, foreign_routes
from face_d2.cli import benchmark as command

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")


def run(tmp_path: Path, config: Path, *words: str) -> dict[str, Any]:
    fixed = ["--config-file", str(config), "--threads", "1", "--rounds", "2"]
    assert command.main([*fixed, "--output", str(tmp_path / "out"), *words]) == 0
    return json.loads((tmp_path / "out" / f"{config.stem}.json").read_text())


def average(path: Path, *shape: object) -> Path:
    """Another detector's file: the mean of an image."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceMean", ["picture"], ["mean"])],
        "mean",
        [onnx.helper.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, None)],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_all_rows_of_a_detector(
    tiny_files: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_compiler(function: Any) -> Any:
        def fail(*_: Any) -> None:
            raise RuntimeError("no compiler here")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    other = average(tmp_path / "other.onnx", "n", 3, "h", "w")
    config, weights = tiny_files["lffd"]
    result = run(
        tmp_path,
        config,
        *("--weights", str(weights), "--sizes", "160x128", "192x144", "--onnx", f"other={other}"),
        *("--devices", "cpu"),
    )
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == [
        "PyTorch fp32",
        "PyTorch fp32 channels-last",
        "PyTorch bf16 channels-last",
        "PyTorch fp32 compiled",
        "ONNX Runtime fp32",
        "OpenVINO fp32",
        "ONNX Runtime int8",
        "OpenVINO int8",
        "other, ONNX Runtime",
        "other, OpenVINO",
    ]
    openvino = importlib.util.find_spec("openvino") is not None
    for name, row in rows.items():
        assert list(row["sizes"]) == ["160x128", "192x144"]
        for size, cell in row["sizes"].items():
            if "compiled" in name:
                assert cell["network"] == {"error": "RuntimeError: no compiler here"}
                continue
            if "OpenVINO" in name and not openvino:
                assert "openvino" in cell["network"]["error"]
                continue
            low, high = cell["network"]["quartiles"]
            assert 0 < low <= cell["network"]["median"] <= high
            assert cell["network"]["rounds"] == 2
            if name.startswith("other"):
                assert set(cell) == {"network"}
                continue
            assert cell["end to end"]["median"] > 0
            expected = result["detector"]["gflops"][size] / cell["network"]["median"]
            assert cell["e_net"] == pytest.approx(expected)
            assert ("share_of_peak" in cell) == ("int8" not in name)
    assert result["machine"]["threads"] == 1
    assert result["detector"]["megabytes"]["int8"] > 0
    assert set(result["peaks"]) == {"fp32 on cpu", "bf16 on cpu"}

    printed = capsys.readouterr().out
    text = (tmp_path / "out" / f"{config.stem}.md").read_text()
    assert text in printed
    assert "| PyTorch fp32 compiled | none: RuntimeError: no compiler here |" in unpadded(text)
    assert "| LFFD | 2.15 | 9.25 | 9 | 91.0 / 88.1 / 78.0 | 7.6 |" in unpadded(text)
    for name in ("times", "e_net"):
        assert (tmp_path / "out" / f"{config.stem}_{name}.png").stat().st_size > 5000


def test_without_weights_and_without_onnx(
    tiny_files: dict[str, tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "face_d2.export.onnx_file", None)
    config, _ = tiny_files["df2s2"]
    words = ["--sizes", "128x96", "--only", "channels-last", "fp32", "--devices", "cpu"]
    monkeypatch.setattr(torch, "compile", lambda function: function)
    result = run(tmp_path, config, *words)
    rows = {row["name"]: row["sizes"]["128x96"] for row in result["rows"]}
    assert rows["PyTorch fp32 channels-last"]["end to end"]["median"] > 0
    assert "is not installed" in rows["ONNX Runtime fp32"]["network"]["error"]
    assert not [name for name in rows if "int8" in name]
    assert result["weights"].startswith("Random weights")


def settings(config: Path, weights: Path, **chosen: Any) -> measure.BenchmarkSettings:
    """One round at 64 x 48 on one thread, in no runtime but those of files."""
    fixed = {"opts": (), "sizes": [("64x48", 48, 64)], "threads": 1, "rounds": 1}
    limits = {"max_seconds": 10.0, "devices": []}
    return measure.BenchmarkSettings(str(config), str(weights), **fixed, **limits, **chosen)


@pytest.mark.parametrize(
    ("place", "failed"),
    [
        ("onnx_file.export_onnx", {"ONNX Runtime fp32", "ONNX Runtime int8"}),
        ("quantize.write_int8", {"ONNX Runtime int8"}),
    ],
)
def test_a_file_that_cannot_be_written_is_the_reason_in_its_rows(
    place: str,
    failed: set[str],
    tiny_files: dict[str, tuple[Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator\nand a long trace")

    monkeypatch.setattr(f"face_d2.export.{place}", fail)
    monkeypatch.setattr(measure, "convolution_peak", lambda *_: 1.0)  # takes seconds
    result = measure.measure(settings(*tiny_files["lffd"], only=["onnx"]))
    rows = {row["name"]: row["sizes"]["64x48"]["network"] for row in result["rows"]}
    assert rows.keys() == {"ONNX Runtime fp32", "ONNX Runtime int8"}
    for name, cell in rows.items():
        assert ("median" in cell) == (name not in failed)
        assert ("no such operator" in cell.get("error", "")) == (name in failed)
        assert "long trace" not in cell.get("error", "")


def test_times_and_int8_are_those_of_the_users_pictures(
    tiny_files: dict[str, tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, gray in (("a.png", 40), ("b.png", 200)):
        Image.new("RGB", (200, 100), (gray, gray, gray)).save(folder / name)
    seen: dict[str, Any] = {}
    files = {"fp32": "not exported", "int8": "not exported"}

    def cells(routes: Any, image: Any, settings: Any, bar: Any) -> list[dict[str, Any]]:
        seen["image"] = image
        return [{} for _ in routes]

    monkeypatch.setattr(measure, "_cells", cells)
    monkeypatch.setattr(measure, "convolution_peak", lambda *_: 1.0)  # takes seconds
    monkeypatch.setattr(measure, "_files", lambda *words: seen.update(images=words[2]) or files)
    own = {"image": str(folder / "b.png"), "calibration": str(folder)}
    measure.measure(settings(*tiny_files["lffd"], only=["onnx"], **own))
    assert sorted(file.name for file in seen["images"]) == ["a.png", "b.png"]
    assert seen["image"].shape == (48, 64, 3)
    assert (seen["image"] == 200).all()


def test_a_file_made_for_one_size(tmp_path: Path) -> None:
    image = measure._image(None, 48, 64)
    for shape in ((1, 3, 48, 64), (1, 48, 64, 3)):
        route = next(foreign_routes("fixed", average(tmp_path / "fixed.onnx", *shape), 1))
        mean = route.prepare(image)["network"]()[0]
        assert float(mean.squeeze()) == pytest.approx(image.mean(), rel=1e-4)
        with pytest.raises(ValueError, match="made for 64 x 48 alone"):
            route.prepare(measure._image(None, 96, 64))
    route = next(foreign_routes("vector", average(tmp_path / "vector.onnx", 1, 8), 1))
    with pytest.raises(RuntimeError, match="is no image"):
        route.prepare(image)


def test_a_missing_file_is_a_reason(tmp_path: Path) -> None:
    image = measure._image(None, 48, 64)
    for route in file_routes({"fp32": tmp_path / "none.onnx", "int8": "lost"}, 1, None):
        with pytest.raises(RuntimeError, match=r"no such file|lost"):
            route.prepare(image)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--onnx", "x"], "expected NAME=FILE"),
        (["--onnx", "x=none.onnx"], "no such file"),
        (["--only", "abacus", "--sizes", "64x48"], "no row has such a name; there are: PyTorch"),
        (["--image", "none.jpg"], "none.jpg"),
        (["--calibration", "nowhere"], "nowhere: no such file or folder"),
        (["--calibration", "7"], "--calibration 7: no images there"),
        (["--config-file", "lffd/none.yaml"], "no shipped config"),
    ],
)
def test_bad_command_lines(
    tiny_files: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "_files", lambda *_: pytest.fail("not before all is checked"))
    config = str(tiny_files["lffd"][0])
    assert command.main(["--config-file", config, "--output", str(tmp_path), *words]) == 1
    assert message in capsys.readouterr().err
    for wrong, text in (
        (["--sizes", "640"], "expected WIDTHxHEIGHT"),
        (["--rounds", "0"], "error: --rounds 0: expected 1 or more"),
    ):
        with pytest.raises(SystemExit) as stopped:
            command.main(["--config-file", config, *wrong])
        assert stopped.value.code == 2
        assert text in capsys.readouterr().err
