"""The probe that finds processors on which int8 sums overflow, and the warning it leads to."""

from __future__ import annotations

import base64
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

from face_d2 import FaceDetector
from face_d2.predictor import int8_probe, onnx_backend
from face_d2.predictor.runtimes import RUNTIMES

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")


def test_the_probe_is_this_file() -> None:
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "weights": np.full((16, 16, 1, 1), 127, np.int8),
        "weight_scale": np.ones(16, np.float32),
        "weight_zero": np.zeros(16, np.int8),
        "step": np.float32(4096),
    }
    node = onnx.helper.make_node
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            node("DequantizeLinear", ["image", "one", "zero"], ["x"]),
            node("DequantizeLinear", ["weights", "weight_scale", "weight_zero"], ["w"], axis=0),
            node("Conv", ["x", "w"], ["y"]),
            node("QuantizeLinear", ["y", "step", "zero"], ["sums"]),
        ],
        "probe",
        [tensor("image", onnx.TensorProto.UINT8, [1, 16, 8, 8])],
        [tensor("sums", onnx.TensorProto.UINT8, [1, 16, 8, 8])],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    opset = onnx.helper.make_opsetid("", 17)
    expected = onnx.helper.make_model(graph, ir_version=8, opset_imports=[opset])
    found = onnx.load_from_string(zlib.decompress(base64.b64decode(int8_probe._PROBE)))
    onnx.checker.check_model(found, full_check=True)
    assert found == expected


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_its_sums_are_exact_or_cut_at_16_bits(runtime: str) -> None:
    """Whatever this processor is; a third answer would be no answer to the question."""
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    exact = round(16 * 255 * 127 / 4096)
    cut = round(8 * 32767 / 4096)
    (value,) = np.unique(int8_probe.probe_sums(runtime))
    assert value in (exact, cut)
    assert int8_probe.int8_sums_saturate(runtime) == (value == cut)


@pytest.mark.parametrize(
    ("metadata", "saturates", "warned"),
    [
        ({"precision": "int8", "weight_bits": "8"}, True, True),
        ({"precision": "int8", "weight_bits": "8"}, False, False),
        ({"precision": "int8", "weight_bits": "7"}, True, False),
        ({"precision": "int8"}, True, True),  # written before files told
        ({}, True, False),
    ],
)
def test_a_file_that_is_wrong_on_this_processor_is_warned_of(
    metadata: dict[str, str],
    saturates: bool,
    warned: bool,
    tiny_onnx: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_backend, "int8_sums_saturate", lambda runtime: saturates)
    file = onnx.load(tiny_onnx["lffd"])
    known = {entry.key: entry.value for entry in file.metadata_props}
    onnx.helper.set_model_props(file, known | metadata)
    path = tmp_path / "file.onnx"
    onnx.save(file, path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FaceDetector.from_onnx(path, runtime="onnxruntime")
    messages = [warning for warning in caught if warning.category is RuntimeWarning]
    assert len(messages) == warned
    for message in messages:
        assert str(message.message).startswith(f"{path}: its int8 weights have 8 bits")
        assert "Export it again without --int8-weights 8" in str(message.message)
        assert message.filename == __file__  # the line of the caller
