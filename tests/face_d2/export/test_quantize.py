"""Int8 files: close to the float ones, never worse than allowed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_d2 import FaceDetector
from face_d2.predictor.runtimes import openvino_core

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from face_d2.cli import export as command  # noqa: E402
from face_d2.cli.export import main  # noqa: E402
from face_d2.export import accuracy  # noqa: E402
from face_d2.export import quantize as module  # noqa: E402
from face_d2.export.quantize import quantize  # noqa: E402
from face_d2.pretrained import find_pretrained  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def photos(test_data: Path) -> list[Path]:
    return [test_data / "photos" / f"lffd_debug_test{number}.jpg" for number in (3, 5, 6)]


def test_the_released_network(released_onnx: Path, photos: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    result = quantize(released_onnx, path, photos, max_loss=5)
    assert result.images == 3
    assert result.float_ap == pytest.approx(100)
    assert result.loss <= 5
    assert result.kept_float == ()

    file = onnx.load(path)
    assert path.stat().st_size < 0.5 * released_onnx.stat().st_size
    makers = {output: node for node in file.graph.node for output in node.output}
    users: dict[str, list[str]] = {}
    for node in file.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    convolutions = [node for node in file.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 37
    for conv in convolutions:  # no way out to float and back between them, exact at the end
        assert {makers[name].op_type for name in conv.input} == {"DequantizeLinear"}
        last = conv.name.endswith(("/score/Conv", "/box/Conv"))
        rounded = users[conv.output[0]] in (["QuantizeLinear"], ["Relu"])
        assert rounded != last, conv.name
    backbone = [node for node in file.graph.node if node.name.startswith("/backbone/")]
    sums = [node for node in backbone if node.op_type == "Add"]
    assert len(sums) == 6
    for node in sums:
        assert [makers[name].op_type for name in node.input] == ["DequantizeLinear"] * 2
    # What a unit adds to, and rectifies for its first convolution, is rounded once.
    clips = [node for node in backbone if node.op_type == "Clip"]
    assert len(clips) == 6
    for clip in clips:
        assert users[clip.input[0]].count("Add") == 1
        (quantizer,) = (node for node in file.graph.node if clip.output[0] in node.input)
        assert quantizer.op_type == "QuantizeLinear"
        assert quantizer.input[1:] == makers[clip.input[0]].input[1:]
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    assert metadata["precision"] == "int8"
    assert (metadata["weight_bits"], metadata["processors"]) == ("7", "all")
    assert metadata["detector"] == "LFFD"
    assert module._OPTIMIZED not in metadata

    exact = FaceDetector.from_onnx(released_onnx)
    rounded = FaceDetector.from_onnx(path)
    assert rounded.runtime.endswith("int8")
    assert exact.runtime.endswith("float32")
    for a, b in zip(exact.detect(photos), rounded.detect(photos)):
        sure = a.boxes[a.scores > 0.8]
        distance = np.abs(sure[:, None] - b.boxes[None]).max(axis=2).min(axis=1)
        assert (distance < 0.15 * (sure[:, 2:] - sure[:, :2]).max(axis=1)).all()


def test_a_network_with_frozen_normalization_and_half_weights(tmp_path: Path) -> None:
    """The shipped DF2S2: what is folded into its convolutions is not rounded by itself."""
    shipped = find_pretrained("df2s2-lite0").onnx
    assert any("half" in value.name for value in onnx.load(shipped).graph.initializer)
    pictures = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
    path = tmp_path / "int8.onnx"
    exact = FaceDetector.from_onnx(shipped, runtime="onnxruntime", score_threshold=0.02)
    module.write_int8(exact, shipped, path, pictures)
    file = onnx.load(path)
    stored = {value.name for value in file.graph.initializer}
    makers = {output: node for node in file.graph.node for output in node.output}
    convolutions = [node for node in file.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 78
    for conv in convolutions:
        assert {makers[name].op_type for name in conv.input} == {"DequantizeLinear"}
        assert makers[conv.input[1]].input[0] in stored  # int8 weights, one scale a channel
        assert makers[conv.input[1]].op_type == "DequantizeLinear"
    network = [node for node in file.graph.node if "/network/" in node.name]
    assert {node.op_type for node in network} <= {
        "Conv",
        "QuantizeLinear",
        "DequantizeLinear",
        "Add",
    }
    fusion = [node for node in file.graph.node if "/f_blocks" in node.name]
    sums = [node for node in fusion if node.op_type == "Add"]
    assert len(sums) == 3
    for node in sums:  # phi psi + phi is computed in float
        assert "DequantizeLinear" not in {makers[name].op_type for name in node.input}
    rounded = FaceDetector.from_onnx(path, runtime="onnxruntime", score_threshold=0.02)
    for picture in pictures:
        a, b = (np.sort(detector.detect(picture).scores)[::-1] for detector in (exact, rounded))
        sure = int((a > 0.5).sum())
        assert sure
        assert np.abs(a[:sure] - b[:sure]).max() < 0.1


def test_openvino_calculates_in_int8(
    released_onnx: Path, photos: list[Path], tmp_path: Path
) -> None:
    """All convolutions, by the runtime's own account: nothing falls back to float unseen."""
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    path = tmp_path / "int8.onnx"
    module.write_int8(FaceDetector.from_onnx(released_onnx), released_onnx, path, photos[:1])
    core = openvino_core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    precisions: dict[str, list[str]] = {}
    for file in (released_onnx, path):
        compiled = core.compile_model(core.read_model(file), "CPU", settings)
        compiled(np.zeros((1, 160, 160, 3), np.uint8))
        ops = compiled.get_runtime_model().get_ordered_ops()
        nodes = [node.get_rt_info() for node in ops]
        kinds = {op.get_friendly_name(): op.get_rt_info()["layerType"].astype(str) for op in ops}
        precisions[file.name] = [
            info["runtimePrecision"].astype(str)
            for info in nodes
            if info["layerType"].astype(str) == "Convolution"
        ]
    assert precisions[released_onnx.name] == ["f32"] * 37
    assert len(precisions["int8.onnx"]) == 37
    assert set(precisions["int8.onnx"]) <= {"i8", "u8"}
    between = {name for name in kinds if name.startswith("/backbone/Relu")}
    assert {kinds[name] for name in between} == {"Eltwise"}  # a clip of bytes, no rounding anew
    assert len(between) == 6


def test_onnxruntime_calculates_in_int8(
    released_onnx: Path, photos: list[Path], tmp_path: Path
) -> None:
    """All convolutions but the last of every branch, whose answers stay exact."""
    path, optimized = tmp_path / "int8.onnx", tmp_path / "optimized.onnx"
    module.write_int8(FaceDetector.from_onnx(released_onnx), released_onnx, path, photos[:1])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(optimized).graph.node]
    assert (kinds.count("QLinearConv"), kinds.count("QLinearAdd")) == (29, 6)
    assert sum(kind.endswith("Conv") for kind in kinds) == 37


def test_biases_keep_their_value(released_onnx: Path, photos: list[Path], tmp_path: Path) -> None:
    """Within a step, the product of both scales (some are rounded twice)."""
    path = tmp_path / "int8.onnx"
    module.write_int8(FaceDetector.from_onnx(released_onnx), released_onnx, path, photos[:1])
    optimized = tmp_path / "optimized.onnx"
    module._optimize(released_onnx, optimized)
    values = {
        value.name: onnx.numpy_helper.to_array(value)
        for file in (onnx.load(optimized), onnx.load(path))
        for value in file.graph.initializer
    }
    makers = {output: node for node in onnx.load(path).graph.node for output in node.output}
    seen = 0
    for node in makers.values():
        if node.op_type == "Conv":
            image, weights, bias = (makers[name] for name in node.input)
            step = values[image.input[1]] * values[weights.input[1]]
            np.testing.assert_allclose(values[bias.input[1]], step, rtol=1e-6)
            exact = values[bias.input[0].removesuffix("_quantized")]
            assert (np.abs(values[bias.input[0]] * step - exact) <= step + 1e-6).all()
            seen += 1
    assert seen == 37


def test_what_stays_in_float(released_onnx: Path) -> None:
    """Each set holds the one before, and what lies between float convolutions goes with them."""
    file = onnx.load(released_onnx)
    taps = ("c8", "c11", "c14", "c17")
    last = {f"/head/{tap}/{arm}/Conv" for tap in taps for arm in ("score", "box")}
    hidden = {f"/head/{tap}/{arm}_hidden/Conv" for tap in taps for arm in ("score", "box")}
    first = {"/backbone/conv1/Conv", "/backbone/conv2/Conv"}
    tiers = [set(tier) for tier in module._tiers(file)]
    assert tiers == [set(), last, first | last, first | last | hidden]
    outside = set(module._float_between(file, ()))
    assert outside
    assert not any("backbone" in name or "head" in name for name in outside)
    with_last = set(module._float_between(file, sorted(last)))
    assert {name for name in with_last - outside} == {
        f"/head/{tap}/Relu_{number}" for tap in taps for number in (1, 2)
    }


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
    monkeypatch.setattr(accuracy, "_FACE_SCORE", 2.0)
    with pytest.raises(ValueError, match="finds no face"):
        quantize(released_onnx, tmp_path / "x.onnx", photos[:1])


@pytest.mark.parametrize("others", ["s2/ev/a.jpg", "s1/ev/a.png"])
def test_images_that_share_event_and_name_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    monkeypatch.setattr(FaceDetector, "from_onnx", lambda *_, **__: _SeesNothing())
    images = [tmp_path / "s1/ev/a.jpg", tmp_path / others]
    message = rf"s1/ev/a\.jpg and .*{re.escape(others)} share the name 'ev/a'"
    with pytest.raises(ValueError, match=message):
        accuracy.check_images(images, None)
    with pytest.raises(ValueError, match="there are no images; int8 needs images"):
        accuracy.check_images([], None)
    with pytest.raises(ValueError, match=message):
        quantize("any.onnx", tmp_path / "x.onnx", images)


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
        (["--outputs", "maps", "--int8", "x"], "--int8 needs"),
        (["--ground-truth", "x"], "--ground-truth needs --int8"),
        (["--int8-weights", "8"], "--int8-weights needs --int8"),
        (["--int8", "x", "--int8-weights", "6"], "invalid choice: 6"),
    ],
)
def test_bad_command_lines(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--config-file", "c", "--weights", "w", "--output", "o.onnx", *words])
    assert message in capsys.readouterr().err


class _SeesNothing:
    def stream(self, images: Sequence[Path]) -> Iterator[object]:
        pytest.fail("the images' names come first")


def _touch_nothing(folder: Path) -> None:
    pass


def _without_image(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")


def _unreadable(folder: Path) -> None:
    folder.mkdir()
    (folder / "broken.jpg").write_bytes(b"no image")


def _flat(folder: Path) -> None:
    folder.mkdir()
    cv2.imwrite(str(folder / "one.jpg"), np.zeros((40, 60, 3), np.uint8))


@pytest.mark.parametrize(
    ("prepare", "words", "message"),
    [
        (_touch_nothing, [], "calibration: no such file or folder"),
        (_without_image, [], "calibration: contains no images or videos"),
        (_unreadable, [], "broken.jpg cannot be decoded"),
        (_flat, ["--ground-truth", "TRUTH"], "must be the folder of EVENT folders"),
        (_flat, ["--ground-truth", "nowhere"], "nowhere: no such ground truth"),
    ],
)
def test_images_are_checked_before_the_work(
    prepare: Callable[[Path], None],
    words: list[str],
    message: str,
    tiny_files: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    truth = tmp_path / "truth.txt"
    truth.write_text("0--Parade/one.jpg\n1\n5 5 20 20 0 0 0 0 0 0\n")
    prepare(tmp_path / "calibration")
    config, weights = map(str, tiny_files["lffd"])
    given = ["--config-file", config, "--weights", weights, "--output", str(tmp_path / "x.onnx")]
    words = [str(truth) if word == "TRUTH" else word for word in words]
    assert main([*given, "--int8", str(tmp_path / "calibration"), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()


def test_few_images_are_warned_of(
    tiny_files: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(command, "_quantize", lambda options, images: seen.append(images))
    config, weights = map(str, tiny_files["lffd"])
    given = ["--config-file", config, "--weights", weights, "--output", str(tmp_path / "x.onnx")]
    images = tmp_path / "calibration"
    _flat(images)
    for number, warned in ((2, True), (50, False)):
        for copy in range(number):
            shutil.copy(images / "one.jpg", images / f"{copy}.jpg")
        assert main([*given, "--int8", str(images)]) == 0
        assert ("few images (3)" in capsys.readouterr().err) == warned
        assert seen.pop() == sorted(map(str, images.iterdir()))


def test_int8_by_the_command(
    tiny_files: dict[str, tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a checkpoint to the bytes and what they lose."""
    config, weights = map(str, tiny_files["lffd"])
    images = tmp_path / "calibration"
    images.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        image = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        cv2.imwrite(str(images / f"{number}.png"), image)
    given = ["--config-file", config, "--weights", weights, "--output", str(tmp_path / "x.onnx")]
    words = ["--max-loss", "100", "MODEL.LFFD.SCORE_THRESH_TEST", "0.0"]
    assert main([*given, "--int8", str(images), *words]) == 0
    assert "2 images: float" in capsys.readouterr().out
    detector = FaceDetector.from_onnx(tmp_path / "x_int8.onnx", runtime="onnxruntime")
    assert len(detector.detect(str(images / "0.png"))) > 0
