"""Int8 files whose sums are exact on processors that add products in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from face_d2 import FaceDetector

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from face_d2.export import quantize as module  # noqa: E402
from face_d2.export.quantize import write_int8  # noqa: E402
from face_d2.export.saturation import saturating_convolutions  # noqa: E402


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("noise") / "noise.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8))
    return path


@pytest.fixture(scope="module")
def int8_files(
    tiny_onnx: dict[str, Path], noise: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int], onnx.ModelProto]:
    """By detector and bits of a weight."""
    folder = tmp_path_factory.mktemp("int8")
    files = {}
    for name, source in tiny_onnx.items():
        detector = FaceDetector.from_onnx(source, runtime="onnxruntime")
        for bits in (7, 8):
            path = folder / f"{name}_{bits}.onnx"
            write_int8(detector, source, path, [noise], weight_bits=bits)
            files[name, bits] = onnx.load(path)
    return files


def _int8_weights(file: onnx.ModelProto) -> dict[str, NDArray[np.int8]]:
    """Convolution to its weights (O, I, H, W)."""
    values = {t.name: onnx.numpy_helper.to_array(t) for t in file.graph.initializer}
    makers = {output: node for node in file.graph.node for output in node.output}
    return {
        node.name: values[makers[node.input[1]].input[0]]
        for node in file.graph.node
        if node.op_type == "Conv"
    }


def _patches(rows: NDArray[np.int8]) -> Iterator[NDArray[np.uint8]]:
    """Activations (O, K) for weights (O, K): the worst of both signs, and noise."""
    yield np.where(rows > 0, 255, 0).astype(np.uint8)
    yield np.where(rows < 0, 255, 0).astype(np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(8):
        yield generator.integers(0, 256, rows.shape, np.uint8)


def _added_in_16_bits(patch: NDArray[np.uint8], rows: NDArray[np.int8]) -> NDArray[np.int32]:
    """(O,) sums as VPMADDUBSW, VPMADDWD and VPADDD make them."""
    products = patch.astype(np.int32) * rows
    products = np.pad(products, ((0, 0), (0, -products.shape[1] % 2)))
    pairs = products[:, ::2] + products[:, 1::2]
    return pairs.clip(-(2**15), 2**15 - 1).astype(np.int16).sum(axis=1, dtype=np.int32)


def _is_exact(weights: NDArray[np.int8]) -> bool:
    """For every patch, the products in the order of rows and columns and in that of channels."""
    for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
        rows = weights.transpose(order).reshape(len(weights), -1)
        for patch in _patches(rows):
            exact = (patch.astype(np.int32) * rows).sum(axis=1)
            if (_added_in_16_bits(patch, rows) != exact).any():
                return False
    return True


@pytest.mark.parametrize("name", ["df2s2", "lffd"])
def test_sums_of_7_bit_weights_are_exact_in_16_bits(
    name: str, int8_files: dict[tuple[str, int], onnx.ModelProto]
) -> None:
    weights = _int8_weights(int8_files[name, 7])
    assert len(weights) > 8
    assert {array.dtype for array in weights.values()} == {np.dtype(np.int8)}
    assert [conv for conv, array in weights.items() if not _is_exact(array)] == []
    assert saturating_convolutions(int8_files[name, 7]) == ()
    # Not by giving up more than the bit: every output channel uses the whole range.
    for array in weights.values():
        assert (np.abs(array.astype(int)).reshape(len(array), -1).max(axis=1) == 64).all()


@pytest.mark.parametrize("name", ["df2s2", "lffd"])
def test_sums_of_8_bit_weights_are_not(
    name: str, int8_files: dict[tuple[str, int], onnx.ModelProto]
) -> None:
    file = int8_files[name, 8]
    wrong = {conv for conv, array in _int8_weights(file).items() if not _is_exact(array)}
    assert wrong
    assert wrong <= set(saturating_convolutions(file))  # which looks at every order
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    assert metadata["weight_bits"] == "8"
    assert "VNNI" in metadata["processors"]


@pytest.mark.parametrize(
    ("pair", "saturates"),
    [
        ((64, 64), False),  # 255 x 128 = 32,640
        ((127, 1), False),
        ((65, 64), True),  # 32,895 is more than 32,767
        ((-64, -64), False),
        ((-65, -64), True),  # -32,895 is less than -32,768
        ((127, -127), False),  # of two signs, one product alone is the greatest sum
    ],
)
def test_the_bound_is_that_of_16_bits(pair: tuple[int, int], saturates: bool) -> None:
    """The two weights far apart, among zeros."""
    weights = np.zeros((3, 4, 3, 3), np.int8)
    weights[1, 0, 0, 0], weights[1, 3, 2, 1] = pair
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("DequantizeLinear", ["weights", "scale", "zeros"], ["w"], axis=0),
            node("Conv", ["x", "w"], ["y"], name="conv"),
        ],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 6, 6])],
        [
            onnx.numpy_helper.from_array(weights, "weights"),
            onnx.numpy_helper.from_array(np.ones(3, np.float32), "scale"),
            onnx.numpy_helper.from_array(np.zeros(3, np.int8), "zeros"),
        ],
    )
    file = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    assert saturating_convolutions(file) == (("conv",) if saturates else ())


def test_a_file_that_could_saturate_is_refused(
    tiny_onnx: dict[str, Path], noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if ONNX Runtime's quantization had not kept to 7 bits."""
    whole_range = module.quantize_static
    monkeypatch.setattr(
        module,
        "quantize_static",
        lambda *given, **settings: whole_range(*given, **settings | {"reduce_range": False}),
    )
    source = tiny_onnx["lffd"]
    detector = FaceDetector.from_onnx(source, runtime="onnxruntime")
    with pytest.raises(RuntimeError, match=r"can leave 16 bits.*/Conv.*another version of onnxru"):
        write_int8(detector, source, tmp_path / "int8.onnx", [noise])
    assert list(tmp_path.iterdir()) == []


def test_other_numbers_of_bits_are_errors(
    tiny_onnx: dict[str, Path], noise: Path, tmp_path: Path
) -> None:
    detector = FaceDetector.from_onnx(tiny_onnx["lffd"], runtime="onnxruntime")
    with pytest.raises(ValueError, match=r"weight_bits is 4; expected one of \[7, 8\]"):
        write_int8(detector, tiny_onnx["lffd"], tmp_path / "x.onnx", [noise], weight_bits=4)
    assert list(tmp_path.iterdir()) == []
