"""The released head detector, converted, against the original runtime's outputs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from torch import Tensor
from torchvision.ops import box_iou

from face_d2.config import get_cfg, get_config_file
from lffd_d2 import LFFD
from lffd_d2.convert import convert_file
from lffd_d2.mxnet_params import RELEASES, git_blob_id

PHOTOS = [f"lffd_debug_test{n}.jpg" for n in (1, 2, 3, 5, 6)]


@pytest.fixture(scope="module")
def released(test_data: Path) -> Path:
    return test_data / "lffd" / "head_10_160_17L_4scales_v1_iter_800000.params"


@pytest.fixture(scope="module")
def model(released: Path, tmp_path_factory: pytest.TempPathFactory) -> LFFD:
    """The converted detector with the settings of the reference run."""
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("lffd/lffd_17L4S.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.LFFD.SCORE_THRESH_TEST = 0.3
    cfg.MODEL.LFFD.NMS_TYPE = "iom"
    cfg.MODEL.LFFD.NMS_THRESH_TEST = 0.3
    checkpoint = tmp_path_factory.mktemp("head") / "head.pth"
    convert_file(released, checkpoint)
    built = build_model(cfg).eval()
    DetectionCheckpointer(built).load(str(checkpoint))
    return built


def photo(test_data: Path, name: str) -> Tensor:
    image = cv2.imread(str(test_data / "photos" / name))
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def test_the_file_is_recognized(released: Path) -> None:
    assert RELEASES[git_blob_id(released.read_bytes())].variant == "17L4S"


@pytest.mark.parametrize("number", [3, 6])
def test_raw_maps_equal_the_original_runtime(model: LFFD, test_data: Path, number: int) -> None:
    image = photo(test_data, f"lffd_debug_test{number}.jpg")
    with torch.no_grad():
        maps = model.forward_maps(model.preprocess_image([{"image": image}]).tensor)
    reference = np.load(test_data / "lffd" / "reference" / f"lffd_debug_test{number}.npz")
    assert len(maps) == len(reference.files) == 8
    for branch in range(4):
        np.testing.assert_allclose(maps[2 * branch], reference[f"score_{branch}"], atol=1e-4)
        np.testing.assert_allclose(maps[2 * branch + 1], reference[f"box_{branch}"], atol=1e-3)


@pytest.mark.parametrize("name", PHOTOS)
def test_boxes_equal_the_original_tool(model: LFFD, test_data: Path, name: str) -> None:
    reference = json.loads((test_data / "lffd/reference/head_detections.json").read_text())
    expected = torch.tensor(reference["detections"][name])
    with torch.no_grad():
        found = model([{"image": photo(test_data, name)}])[0]["instances"]
    assert len(found) == len(expected)
    overlap, match = box_iou(expected[:, :4], found.pred_boxes.tensor).max(dim=1)
    assert len(set(match.tolist())) == len(expected)
    assert overlap.min() >= 0.98
    assert (found.scores[match] - expected[:, 4]).abs().max() <= 1e-3
    assert (found.scores.diff() <= 0).all()


def test_iou_suppression_finds_the_same_people(model: LFFD, test_data: Path) -> None:
    """The default measure is another one; the same heads must come out on an easy photograph."""
    image = photo(test_data, "lffd_debug_test3.jpg")
    with torch.no_grad():
        by_iom = model([{"image": image}])[0]["instances"]
        model.test_nms_type = "iou"
        by_iou = model([{"image": image}])[0]["instances"]
        model.test_nms_type = "iom"
    best = box_iou(by_iom.pred_boxes.tensor, by_iou.pred_boxes.tensor).max(dim=1).values
    assert best.min() > 0.98
