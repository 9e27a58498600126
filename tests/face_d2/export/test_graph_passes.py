"""Changes to exported graphs: what they may touch, and that outputs stay what they are."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from face_d2.export.graph_passes import tidy  # noqa: E402
from face_d2.export.half import store_in_half  # noqa: E402


def padded_convolution(
    pads=(0, 0, 1, 0, 0, 0, 2, 3),
    value=None,
    mode="constant",
    own=(1, 1, 0, 2),
    twice=False,
    shown=False,
):
    """A convolution 3x3 with padding ``own`` of (N, 2, H, W) behind a Pad by a computed constant.

    The exporter writes the amounts as a Cast of a constant, so they are one here. ``own`` may be a
    value of auto_pad. With ``twice``, another node takes what is padded, with ``shown``, the user.
    """
    rng = np.random.default_rng(0)
    weights = {
        "weight": rng.normal(size=(3, 2, 3, 3)).astype(np.float32),
        "amounts": np.array(pads, np.int32),
    }
    inputs = ["image", "cast"]
    padding = {"auto_pad": own} if isinstance(own, str) else {"pads": list(own)}
    if value is not None:
        weights["value"] = np.array(value, np.float32)
        inputs.append("value")
    nodes = [
        helper.make_node("Cast", ["amounts"], ["cast"], to=TensorProto.INT64),
        helper.make_node("Pad", inputs, ["padded"], mode=mode),
        helper.make_node("Conv", ["padded", "weight"], ["map"], **padding),
    ]
    outputs = ["map", "padded"] if shown else ["map"]
    if twice:
        nodes.append(helper.make_node("Relu", ["padded"], ["other"]))
        outputs.append("other")
    return model(nodes, weights, outputs)


def model(nodes, weights, outputs):
    """A model of opset 17 with the input ``image`` (N, 2, H, W)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(file, image):
    """All outputs by ONNX Runtime, without changes of its own to the graph."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        file.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": image})


def kinds(file):
    return [node.op_type for node in file.graph.node]


@pytest.mark.parametrize("value", [None, 0.0])
@pytest.mark.parametrize("own", [(0, 0, 0, 0), (1, 1, 0, 2)])
def test_constant_padding_with_zeros_moves_into_the_convolution(value, own):
    file = padded_convolution(value=value, own=own)
    image = np.random.default_rng(1).normal(size=(2, 2, 9, 7)).astype(np.float32)
    expected = run(file, image)
    tidy(file)
    assert "Pad" not in kinds(file)
    onnx.checker.check_model(file, full_check=True)
    for ours, theirs in zip(expected, run(file, image)):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "settings",
    [
        {"value": 1.0},
        {"mode": "reflect"},
        {"twice": True},
        {"shown": True},
        {"own": "SAME_UPPER"},
        {"pads": (0, 0, -1, 0, 0, 0, 2, 3)},
    ],
)
def test_a_padding_that_a_convolution_cannot_do_stays(settings):
    file = padded_convolution(**settings)
    image = np.random.default_rng(1).normal(size=(1, 2, 9, 7)).astype(np.float32)
    expected = run(file, image)
    tidy(file)
    assert "Pad" in kinds(file)
    for ours, theirs in zip(expected, run(file, image)):
        np.testing.assert_array_equal(ours, theirs)


def test_amounts_of_equal_halves_move_into_the_convolution():
    nodes = [
        helper.make_node("Concat", ["half", "half"], ["amounts"], axis=0),
        helper.make_node("Pad", ["image", "amounts"], ["padded"]),
        helper.make_node("Conv", ["padded", "weight"], ["map"]),
    ]
    weight = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
    file = model(nodes, {"half": np.array([0, 0, 1, 2], np.int64), "weight": weight}, ["map"])
    image = np.random.default_rng(1).normal(size=(1, 2, 9, 7)).astype(np.float32)
    (expected,) = run(file, image)
    tidy(file)
    assert "Pad" not in kinds(file)
    np.testing.assert_array_equal(run(file, image)[0], expected)


def test_a_padding_that_depends_on_the_image_stays():
    amounts = {"first": np.array([0] * 6, np.int64)}
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"], start=2),  # (2,) height, width
        helper.make_node("Concat", ["first", "shape"], ["amounts"], axis=0),
        helper.make_node("Pad", ["image", "amounts"], ["padded"]),
        helper.make_node("Conv", ["padded", "weight"], ["map"]),
    ]
    weight = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
    file = model(nodes, {**amounts, "weight": weight}, ["map"])
    tidy(file)
    assert "Pad" in kinds(file)
    image = np.ones((1, 2, 5, 4), np.float32)
    assert run(file, image)[0].shape == (1, 3, 8, 6)


def test_weights_are_stored_in_half_precision_where_this_loses_nothing():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(32, 2, 3, 3)).astype(np.float16)
    inexact, large = rng.normal(size=(2, 32, 32, 3, 3)).astype(np.float32)
    large = np.round(large) * np.float32(1e6)  # beyond the range of float16
    weights = {
        "exact": half.astype(np.float32),
        "inexact": inexact,
        "large": large,
        "few": np.ones(32, np.float32),
        "steps": np.array([1, 1, 1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["image", "exact", "few"], ["first"]),
        helper.make_node("Conv", ["first", "inexact"], ["second"]),
        helper.make_node("Conv", ["second", "large"], ["third"]),
        helper.make_node("Tile", ["third", "steps"], ["map"]),
    ]
    file = model(nodes, weights, ["map"])
    image = rng.normal(size=(1, 2, 9, 9)).astype(np.float32)
    (expected,) = run(file, image)
    before = file.ByteSize()
    assert store_in_half(file) == 1
    onnx.checker.check_model(file, full_check=True)
    assert before - file.ByteSize() == pytest.approx(half.nbytes, abs=100)
    stored = {weight.name: numpy_helper.to_array(weight) for weight in file.graph.initializer}
    assert stored.keys() == {"exact.half", *weights} - {"exact"}
    np.testing.assert_array_equal(stored["exact.half"], half)
    np.testing.assert_array_equal(run(file, image)[0], expected)
