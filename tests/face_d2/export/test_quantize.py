"""Int8 files: close to the float ones, never worse than allowed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from face_d2 import FaceDetector

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from face_d2.export import quantize as module  # noqa: E402
from face_d2.export.command import main  # noqa: E402
from face_d2.export.quantize import quantize  # noqa: E402


@pytest.fixture(scope="module")
def photos(test_data: Path) -> list[Path]:
    return [test_data / "photos" / f"lffd_debug_test{number}.jpg" for number in (3, 5, 6)]


def test_the_released_network(released_onnx: Path, photos: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    result = quantize(released_onnx, path, photos, max_loss=5)
    assert result.images == 3
    assert result.float_ap == pytest.approx(100)
    assert result.loss <= 5
    predicting = {f"/head/c{tap}/{arm}/Conv" for tap in (8, 11, 14, 17) for arm in ("score", "box")}
    assert predicting <= set(result.kept_float)

    file = onnx.load(path)
    assert path.stat().st_size < 0.5 * released_onnx.stat().st_size
    quantised = {n.name for n in file.graph.node if n.op_type == "Conv"} - set(result.kept_float)
    assert len(quantised) > 15
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    assert metadata["precision"] == "int8"
    assert metadata["detector"] == "LFFD"

    exact = FaceDetector.from_onnx(released_onnx)
    rounded = FaceDetector.from_onnx(path)
    assert rounded.runtime.endswith("int8")
    assert exact.runtime.endswith("float32")
    for a, b in zip(exact.detect(photos), rounded.detect(photos)):
        sure = a.boxes[a.scores > 0.8]
        distance = np.abs(sure[:, None] - b.boxes[None]).max(axis=2).min(axis=1)
        assert (distance < 0.15 * (sure[:, 2:] - sure[:, :2]).max(axis=1)).all()


def test_a_loss_that_is_too_great_writes_nothing(
    released_onnx: Path, photos: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    with pytest.raises(RuntimeError, match=r"loses more than -1 AP points: .* 8 convolutions in"):
        quantize(released_onnx, path, photos[:1], max_loss=-1)
    assert list(tmp_path.iterdir()) == []


def test_images_are_needed(
    released_onnx: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="int8 needs images"):
        quantize(released_onnx, tmp_path / "x.onnx", [])
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg"):
        quantize(released_onnx, tmp_path / "x.onnx", [tmp_path / "missing.jpg"])
    monkeypatch.setattr(module, "_FACE_SCORE", 2.0)
    with pytest.raises(ValueError, match="finds no face"):
        quantize(released_onnx, tmp_path / "x.onnx", photos[:1])


def test_against_ground_truth(released_onnx: Path, test_data: Path, tmp_path: Path) -> None:
    """A detector of heads is measured on faces: a low AP, but both files by the same measure."""
    root = test_data / "widerface"
    images = sorted((root / "WIDER_val/images").glob("0--Parade/*.jpg"))[:2]
    truth = root / "eval_tools" / "ground_truth"
    result = quantize(
        released_onnx, tmp_path / "int8.onnx", images, ground_truth=truth, max_loss=100
    )
    assert 0 <= result.float_ap < 100
    assert result.loss == pytest.approx(result.float_ap - min(result.int8_ap.values()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--outputs", "maps", "--int8", "x"], "--int8 goes with"),
        (["--ground-truth", "x"], "is for --int8"),
    ],
)
def test_bad_command_lines(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--config-file", "c", "--weights", "w", "--output", "o.onnx", *words])
    assert message in capsys.readouterr().err
