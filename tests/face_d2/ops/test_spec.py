"""Cards inside ONNX files: read back whole, and what is no card of this version."""

from __future__ import annotations

import json

import pytest

from face_d2.ops.resize import SizeRule
from face_d2.ops.spec import DetectorSpec, Level, Suppression

CARD = DetectorSpec(
    detector="LFFD",
    config="lffd_25L8S",
    input_format="BGR",
    size_rule=SizeRule(640, 1333, 0),
    min_image_side=10.0,
    levels=(Level("c8", 4, (10.0, 15.0)),),
    suppression=Suppression(0.1, 1000, False, "iou", 0.4, 750),
)


def test_a_card_is_read_back() -> None:
    assert DetectorSpec.from_metadata(CARD.to_metadata(), "x.onnx") == CARD


def _without(*keys: str) -> str:
    values = json.loads(CARD.to_metadata()["face_d2"])
    return json.dumps({key: value for key, value in values.items() if key not in keys})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[1]",
        "7",
        "{}",
        '{"format": 2}',
        _without("levels"),
        _without("size_rule"),
        _without("detector"),
        _without().replace('"stride"', '"step"'),
        _without().replace('"nms_type"', '"nms"'),
    ],
)
def test_a_card_of_another_form_names_the_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"x\.onnx: written by another version; export it again"):
        DetectorSpec.from_metadata({"face_d2": text}, "x.onnx")
