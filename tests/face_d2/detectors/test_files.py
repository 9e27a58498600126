"""The adapters on the authors' own files, against independent implementations and published AP."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torchvision.ops import box_iou

from face_d2.analysis.compare.opening import open_detector
from face_d2.data.image_file import read_image

FILES = {
    "yunet_n_dynamic.onnx": "yunet",
    "yunet_s_dynamic.onnx": "yunet",
    "scrfd_500m_kps.onnx": "scrfd",
    "scrfd_2.5g_kps.onnx": "scrfd",
    "retinaface_mnet025_640.onnx": "retinaface",
    "yolov5n-0.5.onnx": "yolov5face",
    "yolov8-lite-t.onnx": "yolov8face",
    "version-RFB-320.onnx": "ultralight",
    "version-RFB-640.onnx": "ultralight",
    "version-slim-320.onnx": "ultralight",
    "centerface.onnx": "centerface",
    "fd1mb_slim_640.onnx": "facedetector1mb",
    "fd1mb_rfb_640.onnx": "facedetector1mb",
}


@pytest.fixture
def photo(test_data) -> np.ndarray:
    """Six faces, all large."""
    return read_image(test_data / "photos" / "fastface_multi_face.jpeg")


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return box_iou(torch.from_numpy(np.float32(a)), torch.from_numpy(np.float32(b))).numpy()


@pytest.mark.parametrize(("name", "adapter"), FILES.items(), ids=list(FILES))
def test_a_published_file_is_recognized_and_finds_the_six_faces(
    name, adapter, detector_file, photo
):
    detector = open_detector(str(detector_file(name)), 1)
    assert detector.adapter == adapter
    boxes, _scores = detector.detect(photo)
    yunet = open_detector(f"yunet:{detector_file('yunet_n_dynamic.onnx')}?score=0.5", 1)
    faces = yunet.detect(photo).boxes
    assert len(faces) == 6
    # The six best boxes are the six faces, one each.
    best = overlaps(boxes[:6], faces)
    assert (best.max(axis=1) > 0.4).all()
    assert sorted(best.argmax(axis=1)) == list(range(6))


def test_yunet_gives_the_boxes_of_opencv(detector_file, photo):
    file = detector_file("yunet_n_dynamic.onnx")
    height, width = photo.shape[:2]
    # OpenCV's score is the square root of the product that the authors' evaluation takes.
    reference = cv2.FaceDetectorYN.create(str(file), "", (width, height), 0.5, 0.45, 5000)
    _, expected = reference.detect(photo)
    boxes, scores = open_detector(f"yunet:{file}?score=0.25", 1).detect(photo)
    expected = expected[np.argsort(-expected[:, 14], kind="stable")]
    assert len(expected) == len(boxes) >= 6
    corners = np.concatenate([expected[:, :2], expected[:, :2] + expected[:, 2:4]], axis=1)
    assert_allclose(boxes, corners, atol=0.2)
    assert_allclose(np.sqrt(scores), expected[:, 14], atol=1e-3)


def test_yunet_has_the_parameters_that_its_authors_print(detector_file):
    # 75,856 with batch normalization, which the file has folded into the convolutions.
    count = open_detector(str(detector_file("yunet_n_dynamic.onnx"))).parameters
    assert 70_000 < count < 75_856


@pytest.mark.long
def test_yunet_scores_as_its_authors_print_it(detector_file):
    """On the 638 photographs of the fold, of which $FACE_D2_TEST_FOLD names the folder."""
    from face_d2.data.wider_face import read_annotations
    from face_d2.evaluation import widerface_ap

    folder = os.environ.get("FACE_D2_TEST_FOLD")
    if not folder:
        pytest.skip("FACE_D2_TEST_FOLD is not set: it names the widerface folder of the fold")
    root = Path(folder)
    images = read_annotations(root / "wider_face_split" / "wider_face_val_bbx_gt.txt")
    names = [image.name for image in images]
    detector = open_detector(str(detector_file("yunet_n_dynamic.onnx")), 1)
    rows = {}
    for name in names:
        boxes, scores = detector.detect(read_image(root / "WIDER_val" / "images" / name))
        rows[name] = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], scores])
    result = widerface_ap(rows, root / "eval_tools" / "ground_truth", images=names)
    assert_allclose([100 * ap for ap in result.values()], [88.51, 87.92, 82.22], atol=0.1)
