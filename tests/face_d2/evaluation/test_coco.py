"""COCO-style AP without a cap, by face height, in both engines."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from detectron2.structures import BoxMode

from face_d2.evaluation.coco import coco_ap


def _record(name, boxes, iscrowd=None):
    annotations = [
        {"bbox": list(map(float, box)), "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": int(crowd)}
        for box, crowd in zip(boxes, iscrowd or [0] * len(boxes))
    ]
    return {"image_id": name, "annotations": annotations}


def _crowd_of(count):
    """``count`` faces of 20 px on a grid."""
    return [(30 * (n % 40), 30 * (n // 40), 20, 20) for n in range(count)]


def _detect(boxes, score=0.9):
    return np.array([[*box, score] for box in boxes], dtype=np.float32).reshape(-1, 5)


def _random_case(seed):
    generator = np.random.default_rng(seed)
    records, found = [], {}
    for number in range(12):
        count = generator.integers(0, 30)
        corners, sizes = generator.uniform(0, 900, (count, 2)), generator.uniform(
            4, 400, (count, 2)
        )
        boxes = np.concatenate([corners, sizes], axis=1)
        records.append(
            _record(f"e/{number}", boxes.tolist(), (generator.random(count) < 0.2).tolist())
        )
        noisy = boxes + generator.normal(0, 3, boxes.shape)
        extra = np.concatenate([corners[::2] + 50, sizes[::2]], axis=1)
        rows = np.concatenate([noisy, extra]).clip(min=0)
        found[f"e/{number}"] = np.concatenate([rows, generator.random((len(rows), 1))], axis=1)
    return found, records


def test_every_detection_counts():
    faces = _crowd_of(500)
    figures = coco_ap({"e/a": _detect(faces)}, [_record("e/a", faces)])
    assert figures["AP"] == pytest.approx(100.0)
    assert figures["AR"] == pytest.approx(100.0)


def test_each_ap_has_its_own_threshold():
    """A box with an IoU of 0.72 counts up to 0.7, one with 0.77 up to 0.75."""
    faces = _crowd_of(2)
    records = [_record("e/a", faces)]
    for face in records[0]["annotations"]:
        del face["iscrowd"]  # the same as 0
    for height, reached in ((14.4, 5), (15.4, 6)):  # of 20 pixels
        figures = coco_ap({"e/a": _detect([(x, y, w, height) for x, y, w, _ in faces])}, records)
        assert figures["AP"] == pytest.approx(100 * reached / 10)
        assert figures["AP75"] == pytest.approx(100.0 if reached > 5 else 0.0)
        assert figures["AP50"] == pytest.approx(100.0)


def test_two_images_of_one_id_are_an_error():
    faces = _crowd_of(1)
    with pytest.raises(ValueError, match=r"two images .* image_id 'e/a'"):
        coco_ap({"e/a": _detect(faces)}, [_record("e/a", faces), _record("e/a", [])])


def test_sizes_are_face_heights():
    # 8 x 60 is small by area and medium by height; 200 x 40 the other way round.
    faces = [(0, 0, 8, 60), (300, 0, 200, 40), (0, 300, 300, 400)]
    figures = coco_ap({"e/a": _detect(faces[:1])}, [_record("e/a", faces)])
    assert figures["APm"] == pytest.approx(100.0)
    assert figures["APs"] == 0.0
    assert figures["APl"] == 0.0


@pytest.mark.parametrize(
    ("height", "expected"),
    [(9, ""), (10.5, "s"), (49.5, "s"), (50.5, "m"), (299.5, "m"), (300.5, "l")],
)
def test_borders_of_the_heights(height, expected):
    faces = [(0, 0, 40, height)]
    figures = coco_ap({"e/a": _detect(faces)}, [_record("e/a", faces)])
    assert [key for key in "sml" if figures[f"AP{key}"] > 0] == list(expected)


def test_iscrowd_faces_are_ignored():
    faces = _crowd_of(4)
    records = [_record("e/a", faces, [0, 0, 1, 1])]
    found = {"e/a": np.concatenate([_detect(faces[:2], 0.5), _detect(faces[2:3], 0.9)])}
    assert coco_ap(found, records)["AP"] == pytest.approx(100.0)


def test_degenerate_faces_do_no_harm():
    records = [_record("e/a", [(0, 0, 20, 20), (50, 50, 0, 20), (60, 60, -2, -2)], [0, 1, 1])]
    assert coco_ap({"e/a": _detect([(0, 0, 20, 20)])}, records)["AP"] == pytest.approx(100.0)


@pytest.mark.parametrize("shape", [(0, 20), (20, 0), (-3, 20), (-2, -2)])
def test_a_face_without_area_does_not_count(shape):
    """Not even as a face that was missed: it is taken out, not handed on."""
    faces = [(0, 0, 20, 20), (50, 50, *shape)]
    assert coco_ap({"e/a": _detect(faces[:1])}, [_record("e/a", faces)])["AP"] == pytest.approx(100)


def test_boxes_in_another_mode_are_converted():
    record = _record("e/a", [(10, 20, 40, 60)])
    record["annotations"][0]["bbox_mode"] = BoxMode.XYXY_ABS
    assert coco_ap({"e/a": _detect([(10, 20, 30, 40)])}, [record])["AP"] == pytest.approx(100.0)


def test_nothing_found_and_nothing_to_find():
    assert coco_ap({}, [_record("e/a", _crowd_of(3))])["AP"] == 0.0
    assert math.isnan(coco_ap({}, [_record("e/a", [])])["AP"])
    assert math.isnan(coco_ap({"e/a": _detect([(0, 0, 5, 5)])}, [_record("e/a", [])])["AP"])


def test_unknown_image_is_an_error():
    with pytest.raises(ValueError, match="'e/z'"):
        coco_ap({"e/z": _detect([])}, [_record("e/a", [])])


@pytest.mark.parametrize("seed", range(3))
def test_pycocotools_gives_the_same_figures_and_warns(monkeypatch, seed):
    fast = coco_ap(*_random_case(seed))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match=r"twenty times as long.*pip install faster-coco-eval"):
        slow = coco_ap(*_random_case(seed))
    assert slow == pytest.approx(fast, abs=1e-9)
    assert 0 < fast["AP"] < 100
