from __future__ import annotations

import cv2
import numpy as np
import pytest
from helpers.small_graphs import constant_graph
from numpy.testing import assert_allclose

from face_d2.analysis.compare.opening import DetectorChoice, open_detector
from face_d2.analysis.compare.recorded import RecordedDetections
from face_d2.evaluation import write_predictions


class TestSpec:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("yunet:a/b.onnx", ("b", "yunet", "a/b.onnx", {})),
            ("a/b.onnx", ("b", "", "a/b.onnx", {})),
            ("Mine=yunet:b.onnx", ("Mine", "yunet", "b.onnx", {})),
            ("yunet:b.onnx?size=640", ("b size=640", "yunet", "b.onnx", {"size": "640"})),
            ("haar", ("haar", "haar", "", {})),
            ("df2s2-lite0", ("df2s2-lite0", "", "df2s2-lite0", {})),
            ("config:c.yaml+w/model.pth", ("model", "config", "c.yaml+w/model.pth", {})),
        ],
    )
    def test_a_text_is_read_into_name_adapter_target_and_options(self, text, expected):
        spec = DetectorChoice.parse(text)
        assert (spec.name, spec.adapter, spec.target, spec.options) == expected

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("yunt:b.onnx", "no adapter 'yunt'; adapters are yunet"),
            ("yunet:b.onnx?size", "expected KEY=VALUE after '\\?', found 'size'"),
            ("yunet:", "names no file"),
        ],
    )
    def test_a_wrong_text_says_what_was_expected(self, text, message):
        with pytest.raises(ValueError, match=message):
            DetectorChoice.parse(text)


class TestOpen:
    def test_a_missing_file_is_named(self):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx: no such file"):
            open_detector("yunet:nowhere.onnx")

    def test_a_file_that_is_no_model_is_named(self, tmp_path):
        (tmp_path / "x.onnx").write_text("nothing")
        with pytest.raises(ValueError, match=r"x\.onnx: cannot be loaded as an ONNX model"):
            open_detector(str(tmp_path / "x.onnx"))

    def test_an_unknown_option_lists_those_there_are(self, tmp_path):
        path = constant_graph(tmp_path / "a.onnx", {"o": np.zeros((1, 5, 9))})
        with pytest.raises(ValueError, match="no option scor; options are size, score, nms"):
            open_detector(f"yolov8face:{path}?scor=1")

    @pytest.mark.parametrize("option", ["size=8", "score=2", "nms=0", "size=big"])
    def test_an_option_out_of_its_range_is_refused(self, option, tmp_path):
        path = constant_graph(tmp_path / "a.onnx", {"o": np.zeros((1, 5, 9))})
        with pytest.raises(ValueError, match=option.partition("=")[0]):
            open_detector(f"yolov8face:{path}?{option}")

    def test_the_same_content_under_another_name_has_the_same_fingerprint(self, tmp_path):
        files = [constant_graph(tmp_path / name, {"o": np.zeros((1, 5, 9))}) for name in ("a", "b")]
        first, second = (open_detector(f"yolov8face:{file}") for file in files)
        assert first.fingerprint == second.fingerprint
        other = open_detector(f"yolov8face:{files[0]}?score=0.3")
        assert other.fingerprint != first.fingerprint

    def test_a_name_that_is_not_there_says_so(self):
        with pytest.raises((FileNotFoundError, ValueError), match="no-such-detector"):
            open_detector("no-such-detector")


class TestRecorded:
    def test_rows_of_a_folder_become_boxes(self, tmp_path):
        folder = write_predictions({"0--A/x": [[10, 20, 5, 6, 0.5]], "0--A/y": []}, tmp_path / "p")
        recorded = open_detector(str(folder))
        assert isinstance(recorded, RecordedDetections)
        boxes, scores = recorded.of_image("0--A/x.jpg")
        assert_allclose(boxes, [[10, 20, 15, 26]])
        assert_allclose(scores, [0.5])
        assert len(recorded.of_image("0--A/y").scores) == 0

    def test_an_image_without_a_file_is_named(self, tmp_path):
        folder = write_predictions({"0--A/x": []}, tmp_path / "p")
        with pytest.raises(ValueError, match="no file for the image 0--A/z"):
            open_detector(f"predictions:{folder}").of_image("0--A/z")


@pytest.mark.skipif(not hasattr(cv2, "CascadeClassifier"), reason="OpenCV 5 has no Haar cascades")
def test_the_haar_cascade_of_opencv_finds_no_face_in_an_even_image():
    detector = open_detector("haar", 1)
    assert len(detector.detect(np.full((80, 80, 3), 127, np.uint8)).scores) == 0


@pytest.mark.skipif(hasattr(cv2, "CascadeClassifier"), reason="this OpenCV has Haar cascades")
def test_an_opencv_without_haar_cascades_says_which_has_them():
    with pytest.raises(ImportError, match="pip install 'opencv-python<5'"):
        open_detector("haar", 1)


def test_parameters_are_the_weights_of_the_file(tmp_path):
    path = constant_graph(tmp_path / "a.onnx", {"o": np.zeros((1, 5, 9))})
    assert open_detector(f"yolov8face:{path}").parameters == 45
