from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import torch
from helpers.small_graphs import constant_graph
from numpy.testing import assert_allclose

from face_d2 import FaceDetector
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
            ("config:x.yaml+x.pth?class=face", "class=face is no whole number"),
            ("config:x.yaml", "expected config:FILE\\+WEIGHTS"),
            ("config:x.yaml+x.pth?score=0.5", "no option score; options are class"),
        ],
    )
    def test_a_wrong_text_says_what_was_expected(self, text, message):
        with pytest.raises(ValueError, match=message):
            open_detector(text)


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


class TestOwn:
    """A tiny LFFD in both forms: an exported file, and a config with weights."""

    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)

    def test_an_exported_file_is_recognized_and_finds_what_it_finds_elsewhere(self, tiny_onnx):
        detector = open_detector(f"{tiny_onnx['lffd']}?score=0.6", 1)
        assert detector.adapter == "face-d2"
        expected = FaceDetector.from_onnx(tiny_onnx["lffd"], score_threshold=0.6)
        boxes, scores = detector.detect(self.picture)
        assert len(scores) > 0
        assert_allclose(boxes, expected.detect(self.picture).boxes, atol=0.01)
        assert detector.protocol["score threshold"] == "> 0.6"
        assert detector.protocol["image size"].startswith("original, enlarged to a shorter side of")
        assert detector.fingerprint != open_detector(str(tiny_onnx["lffd"])).fingerprint
        assert detector.file_bytes == tiny_onnx["lffd"].stat().st_size

    def test_the_size_of_images_is_part_of_the_protocol(self, tiny_onnx):
        size = open_detector(f"face-d2:{tiny_onnx['df2s2']}").protocol["image size"]
        assert size.startswith("shorter side 96, longer side at most ")

    def test_a_config_finds_what_the_predictor_finds(self, tiny_files):
        config, weights = tiny_files["lffd"]
        threads = torch.get_num_threads()
        detector = open_detector(f"config:{config}+{weights}", 1)
        assert torch.get_num_threads() == 1
        torch.set_num_threads(threads)
        expected = FaceDetector.from_config(config, weights, device="cpu").detect(self.picture)
        boxes, scores = detector.detect(self.picture)
        assert len(scores) > 0
        assert_allclose(scores, expected.scores, atol=1e-5)
        assert_allclose(boxes, expected.boxes, atol=0.01)

    def test_another_class_than_the_faces_is_left_out(self, tiny_files):
        config, weights = tiny_files["lffd"]
        detector = open_detector(f"config:{config}+{weights}?class=1")
        assert len(detector.detect(self.picture).scores) == 0

    def test_a_config_is_told_by_its_content_and_its_weights(self, tiny_files, tmp_path):
        config, weights = tiny_files["lffd"]
        copies = [shutil.copy(file, tmp_path / f"copy{file.suffix}") for file in (config, weights)]
        (tmp_path / "other.yaml").write_text(
            config.read_text().replace("NMS_THRESH_TEST: 0.4", "NMS_THRESH_TEST: 0.5")
        )
        first, same, other = (
            open_detector(f"config:{yaml}+{file}")
            for yaml, file in ((config, weights), copies, (tmp_path / "other.yaml", weights))
        )
        assert first.fingerprint == same.fingerprint
        assert first.fingerprint != other.fingerprint
        assert first.file_bytes == weights.stat().st_size
        assert "weights.pth, sha256 " in first.protocol["file"]
        tensors = torch.load(weights, weights_only=True)["model"].values()
        assert first.parameters == sum(tensor.numel() for tensor in tensors)

    def test_weights_that_are_not_there_are_named(self, tiny_files):
        with pytest.raises(FileNotFoundError, match=r"none\.pth: no such checkpoint"):
            open_detector(f"config:{tiny_files['lffd'][0]}+none.pth")


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
        with pytest.raises(ValueError, match=r"p: has no file 0--A/z\.txt"):
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
