"""Every adapter on graphs whose outputs are known, so that its decoding is checked without files.

The expected box is encoded here by the formula of the detector's paper or code, at one cell of one
level, and must come back.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.small_graphs import constant_graph, echo_graph
from numpy.testing import assert_allclose
from onnx import TensorProto, helper

from face_d2.analysis.compare.opening import open_detector
from face_d2.detectors import ONNX_DETECTORS, open_onnx

BOX = np.array([70.0, 40.0, 110.0, 96.0])  # XYXY in a 128 x 128 image
CENTER, SIDES = (BOX[:2] + BOX[2:]) / 2, BOX[2:] - BOX[:2]
IMAGE = np.full((128, 128, 3), 60, np.uint8)
STRIDES = (8, 16, 32)
LOGIT = np.log(0.9 / 0.1)  # of a score of 0.9
NEVER = -20.0  # the logit of no face


def cells(stride: int) -> int:
    return (128 // stride) ** 2


def index(stride: int, column: int, row: int) -> int:
    return row * (128 // stride) + column


def yunet(path: Path) -> Path:
    outputs = {}
    for stride in STRIDES:
        outputs[f"cls_{stride}"] = np.zeros((1, cells(stride), 1))
        outputs[f"obj_{stride}"] = np.ones((1, cells(stride), 1))
        outputs[f"bbox_{stride}"] = np.zeros((1, cells(stride), 4))
        outputs[f"kps_{stride}"] = np.zeros((1, cells(stride), 10))
    at = index(16, 5, 4)
    outputs["cls_16"][0, at] = 0.9
    outputs["bbox_16"][0, at] = [*(CENTER / 16 - [5, 4]), *np.log(SIDES / 16)]
    return constant_graph(path, outputs)


def scrfd(path: Path) -> Path:
    scores = {f"s{s}": np.zeros((1, 2 * cells(s), 1)) for s in STRIDES}
    boxes = {f"b{s}": np.ones((1, 2 * cells(s), 4)) for s in STRIDES}
    at = 2 * index(16, 5, 4) + 1  # the second anchor of the cell
    point = np.array([5 * 16, 4 * 16])
    scores["s16"][0, at] = 0.9
    boxes["b16"][0, at] = np.concatenate([point - BOX[:2], BOX[2:] - point]) / 16
    return constant_graph(path, {**scores, **boxes})


def retinaface(path: Path) -> Path:
    count = sum(2 * cells(s) for s in STRIDES)
    offsets, classes = np.zeros((1, count, 4)), np.zeros((1, count, 2))
    at = 2 * cells(8) + 2 * index(16, 5, 4)  # the anchor of 64 px
    anchor = (np.array([5, 4]) + 0.5) * 16
    offsets[0, at] = [*((CENTER - anchor) / 64 / 0.1), *(np.log(SIDES / 64) / 0.2)]
    classes[0, :, 0], classes[0, at] = 1, [0.1, 0.9]
    landmarks = np.zeros((1, count, 10))
    outputs = {"loc": offsets, "landms": landmarks, "conf": classes}
    return constant_graph(path, outputs, (128, 128))


def facedetector1mb(path: Path) -> Path:
    counts = {8: 3, 16: 2, 32: 2, 64: 3}  # anchors of a cell
    total = sum(number * cells(stride) for stride, number in counts.items())
    offsets, classes = np.zeros((1, total, 4)), np.zeros((1, total, 2))
    at = 3 * cells(8) + 2 * cells(16) + 2 * index(32, 2, 2)  # the anchor of 64 px
    anchor = (np.array([2, 2]) + 0.5) * 32
    offsets[0, at] = [*((CENTER - anchor) / 64 / 0.1), *(np.log(SIDES / 64) / 0.2)]
    classes[0, at] = [0.1, 0.9]
    landmarks = np.zeros((1, total, 10))
    return constant_graph(path, {"l": offsets, "c": classes, "p": landmarks}, (128, 128))


def s3fd(path: Path) -> Path:
    outputs = {}
    for level in range(6):
        side = max(128 >> (level + 2), 1)
        outputs[f"cls{level}"] = np.zeros((1, 2, side, side))
        outputs[f"cls{level}"][0, 0] = 20
        outputs[f"reg{level}"] = np.zeros((1, 4, side, side))
    anchor = (np.array([5, 4]) + 0.5) * 16  # level 2: stride 16, anchors of 64 px
    outputs["cls2"][0, :, 4, 5] = [0, LOGIT]
    outputs["reg2"][0, :, 4, 5] = [
        *((CENTER - anchor) / 64 / 0.1),
        *(np.log(SIDES / 64) / 0.2),
    ]
    return constant_graph(path, outputs)


def ultralight(path: Path) -> Path:
    classes, boxes = np.zeros((1, 50, 2)), np.zeros((1, 50, 4))
    classes[0, 7], boxes[0, 7] = [0.1, 0.9], BOX / 128
    return constant_graph(path, {"scores": classes, "boxes": boxes}, (240, 320))


def yolov5face(path: Path) -> Path:
    maps = {f"p{s}": np.full((1, 3, 128 // s, 128 // s, 16), NEVER) for s in STRIDES}
    anchor = np.array([43, 55])  # the second of stride 16
    center, sides = (CENTER / 16 - [5, 4] + 0.5) / 2, np.sqrt(SIDES / anchor) / 2
    row = np.log(np.concatenate([center, sides]) / (1 - np.concatenate([center, sides])))
    maps["p16"][0, 1, 4, 5, [0, 1, 2, 3, 4, 15]] = [*row, LOGIT, 20.0]
    return constant_graph(path, maps)


def yolov5face_joined(path: Path) -> Path:
    rows = np.zeros((1, 30, 16))
    rows[0, 3, [0, 1, 2, 3, 4, 15]] = [*CENTER, *SIDES, 0.9, 1.0]
    return constant_graph(path, {"output": rows})


def yolov8face(path: Path) -> Path:
    maps = {f"p{s}": np.zeros((1, 80, 128 // s, 128 // s)) for s in STRIDES}
    for grid in maps.values():
        grid[0, 64] = NEVER
    point = (np.array([5, 4]) + 0.5) * 16
    distances = np.concatenate([point - BOX[:2], BOX[2:] - point]) / 16
    for side, distance in enumerate(distances):
        low = int(distance)  # all the weight on two neighboring bins, whose mean is the distance
        logits = np.full(16, -60.0)
        logits[low : low + 2] = np.log([low + 1 - distance + 1e-9, distance - low + 1e-9])
        maps["p16"][0, 16 * side : 16 * side + 16, 4, 5] = logits
    maps["p16"][0, 64, 4, 5] = LOGIT
    return constant_graph(path, maps)


def ultralytics(path: Path) -> Path:
    rows = np.zeros((1, 5, 30))
    rows[0, :, 3] = [*CENTER, *SIDES, 0.9]
    return constant_graph(path, {"output0": rows})


def centerface(path: Path) -> Path:
    heat, sides, shift = (np.zeros((1, channels, 32, 32)) for channels in (1, 2, 2))
    column, row = (CENTER // 4).astype(int)
    heat[0, 0, row, column] = 0.9
    sides[0, :, row, column] = np.log(SIDES[::-1] / 4)
    shift[0, :, row, column] = (CENTER / 4 - [column, row] - 0.5)[::-1]
    landmarks = np.zeros((1, 10, 32, 32))
    return constant_graph(path, {"h": heat, "s": sides, "o": shift, "l": landmarks}, (32, 32))


CASES = [
    ("yunet", yunet),
    ("scrfd", scrfd),
    ("retinaface", retinaface),
    ("facedetector1mb", facedetector1mb),
    ("s3fd", s3fd),
    ("ultralight", ultralight),
    ("yolov5face", yolov5face),
    ("yolov5face", yolov5face_joined),
    ("yolov8face", yolov8face),
    ("yolov8face", ultralytics),
    ("centerface", centerface),
]
#: So that the image is the canvas, except for Ultra-Light, whose files have a fixed size.
AS_IT_IS = {"scrfd": 128, "yolov5face": 128, "yolov8face": 128}


@pytest.mark.parametrize(("adapter", "build"), CASES, ids=[build.__name__ for _, build in CASES])
class TestEveryAdapter:
    def test_recognizes_its_file_and_gives_the_box_that_the_outputs_encode(
        self, adapter, build, tmp_path
    ):
        options = {"size": AS_IT_IS[adapter]} if adapter in AS_IT_IS else {}
        detector = open_onnx(build(tmp_path / "some.onnx"), threads=1, **options)
        assert detector.adapter == adapter
        boxes, scores = detector.detect(IMAGE)
        assert boxes.dtype == scores.dtype == np.float32
        assert_allclose(boxes, [BOX], atol=0.02)
        assert_allclose(scores, [0.9], atol=1e-4)

    def test_drops_what_scores_no_more_than_the_threshold(self, adapter, build, tmp_path):
        options = {"size": AS_IT_IS[adapter]} if adapter in AS_IT_IS else {}
        detector = open_onnx(build(tmp_path / "some.onnx"), threads=1, score=0.95, **options)
        boxes, scores = detector.detect(IMAGE)
        assert boxes.shape == (0, 4)
        assert scores.shape == (0,)

    def test_states_its_settings_source_and_license(self, adapter, build, tmp_path):
        detector = open_onnx(build(tmp_path / "some.onnx"), threads=1)
        assert {"file", "image size", "score threshold", "NMS"} <= detector.protocol.keys()
        assert detector.about.source.startswith("https://")
        assert detector.about.license
        assert detector.about.protocol_source


def test_all_adapters_of_onnx_files_are_tested_here():
    assert {adapter for adapter, _ in CASES} == ONNX_DETECTORS.keys()


@pytest.mark.parametrize("adapter", ONNX_DETECTORS)
def test_a_file_of_another_detector_is_refused_with_its_inputs_and_outputs(adapter, tmp_path):
    path = echo_graph(tmp_path / "echo.onnx")
    with pytest.raises(ValueError, match=r"echo\.onnx: is not a file of .*outputs echo"):
        open_onnx(path, adapter)


def test_a_file_that_no_adapter_knows_names_the_adapters(tmp_path):
    path = echo_graph(tmp_path / "echo.onnx")
    with pytest.raises(ValueError, match=r"no adapter knows a file with .*yunet, scrfd"):
        open_detector(str(path))


def test_a_size_that_a_file_cannot_take_is_refused(tmp_path):
    path = ultralight(tmp_path / "fixed.onnx")
    with pytest.raises(ValueError, match="takes images of 320 x 240 pixels only"):
        open_onnx(path, size=640)


def retinaface_outputs(count: int) -> dict[str, np.ndarray]:
    return {"loc": np.zeros((1, count, 4)), "conf": np.zeros((1, count, 2)),
            "landms": np.zeros((1, count, 10))}  # fmt: skip


def test_a_retinaface_of_any_size_takes_images_as_they_are(tmp_path):
    """The anchor of 64 pixels in the cell that the box is centered on, without an offset.

    Its outputs have the form of another detector's too, whose anchors differ.
    """
    outputs = retinaface_outputs(sum(2 * cells(s) for s in STRIDES))
    outputs["conf"][0, 2 * cells(8) + 2 * index(16, 5, 4)] = [0.1, 0.9]
    path = constant_graph(tmp_path / "free.onnx", outputs)
    with pytest.raises(ValueError, match=r"retinaface and facedetector1mb know .*; name the adap"):
        open_onnx(path)
    boxes, _ = open_onnx(path, "retinaface").detect(IMAGE)
    assert_allclose(boxes, [[88 - 32, 72 - 32, 88 + 32, 72 + 32]])


def test_a_file_with_other_anchors_is_refused_by_their_number(tmp_path):
    path = constant_graph(tmp_path / "other.onnx", retinaface_outputs(99))
    count = sum(2 * cells(s) for s in STRIDES)
    with pytest.raises(ValueError, match=f"99 boxes for .* 128 x 128 pixels, .* has {count} anch"):
        open_onnx(path, "retinaface").detect(IMAGE)


def test_a_file_with_two_inputs_is_refused(tmp_path):
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "abc"]
    node = helper.make_node("Add", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "test", infos[:2], infos[2:])
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "two.onnx")
    with pytest.raises(ValueError, match=r"two\.onnx: has 2 inputs; expected one, the image"):
        open_onnx(tmp_path / "two.onnx")


def test_a_missing_runtime_says_how_to_install_it(tmp_path, monkeypatch):
    path = echo_graph(tmp_path / "echo.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        open_onnx(path)


def test_overlapping_boxes_leave_the_better_one(tmp_path):
    rows = np.zeros((1, 5, 30))
    rows[0, :, 3] = [*CENTER, *SIDES, 0.8]
    rows[0, :, 4] = [*(CENTER + 2), *SIDES, 0.9]
    rows[0, :, 5] = [20, 20, 10, 10, 0.5]
    detector = open_onnx(constant_graph(tmp_path / "two.onnx", {"o": rows}), size=128)
    boxes, scores = detector.detect(IMAGE)
    assert_allclose(scores, [0.9, 0.5])
    assert_allclose(boxes[1], [15, 15, 25, 25])


def test_boxes_without_area_are_left_out(tmp_path):
    rows = np.zeros((1, 5, 30))
    rows[0, :, 3] = [50, 50, -4, 10, 0.8]
    rows[0, :, 4] = [50, 50, np.nan, 10, 0.9]
    detector = open_onnx(constant_graph(tmp_path / "bad.onnx", {"o": rows}), size=128)
    assert len(detector.detect(IMAGE).scores) == 0
