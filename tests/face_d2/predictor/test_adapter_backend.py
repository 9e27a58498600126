"""Other people's files in FaceDetector and face-d2-predict."""

from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest
from helpers.small_graphs import constant_graph, echo_graph
from numpy.testing import assert_allclose

from face_d2 import FaceDetector
from face_d2.cli.predict import main as predict


@pytest.fixture
def file(tmp_path):
    """A YOLOv8 file that finds the box 20, 30, 60, 90 of a 640 x 640 canvas."""
    rows = np.zeros((1, 5, 30))
    rows[0, :, 3] = [40, 60, 40, 60, 0.9]
    return constant_graph(tmp_path / "yolo.onnx", {"o": rows}, (640, 640))


def test_from_onnx_takes_a_file_that_an_adapter_knows(file):
    detector = FaceDetector.from_onnx(file, threads=1)
    result = detector.detect(np.zeros((320, 320, 3), np.uint8))
    assert_allclose(result.boxes, [[10, 15, 30, 45]], atol=1e-3)
    assert_allclose(result.scores, [0.9])
    assert result.levels.tolist() == [-1]
    assert "YOLOv8-face" in detector.runtime


def test_a_threshold_replaces_the_adapters(file):
    detector = FaceDetector.from_onnx(file, score_threshold=0.95)
    assert len(detector.detect(np.zeros((320, 320, 3), np.uint8))) == 0


def test_a_pickled_detector_finds_the_same(file):
    detector = FaceDetector.from_onnx(file, score_threshold=0.95, threads=1, min_size=7)
    copy = pickle.loads(pickle.dumps(detector))
    assert (copy.min_size, copy.backend.spec) == (7, detector.backend.spec)
    assert len(copy.detect(np.zeros((320, 320, 3), np.uint8))) == 0


def test_an_image_that_is_scaled_to_a_fixed_canvas_is_never_cut_into_tiles(file):
    detector = FaceDetector.from_onnx(file, max_pixels=640 * 640, tile_overlap=32)
    assert len(detector.detect(np.zeros((1500, 1500, 3), np.uint8))) == 1


def test_a_large_image_that_is_searched_as_it_is_is_cut_into_tiles(tmp_path):
    outputs = {}
    for stride in (8, 16, 32):  # no face, for tiles of 256 x 256
        count = (256 // stride) ** 2
        for kind, sides in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{kind}_{stride}"] = np.zeros((1, count, sides))
    path = constant_graph(tmp_path / "yunet.onnx", outputs)
    detector = FaceDetector.from_onnx(path, max_pixels=256 * 256, tile_overlap=32)
    assert detector.backend.spec.size_rule.searched_pixels(600, 400) == 240_000


def test_a_file_that_nobody_knows_says_both(tmp_path):
    path = echo_graph(tmp_path / "echo.onnx")
    with pytest.raises(ValueError, match=r"not a file of face-d2-export.*no adapter knows a file"):
        FaceDetector.from_onnx(path)


def test_openvino_runs_no_file_of_an_adapter(file):
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    with pytest.raises(ValueError, match=r"yolo\.onnx: not a file of face-d2-export"):
        FaceDetector.from_onnx(file, runtime="openvino")


def test_predict_takes_such_a_file(file, tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((320, 320, 3), np.uint8))
    out = tmp_path / "out"
    predict([str(tmp_path / "a.jpg"), "--onnx", str(file), "--output", str(out)])
    records = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    assert_allclose(records[0]["faces"][0]["box"], [10, 15, 30, 45], atol=1e-3)
