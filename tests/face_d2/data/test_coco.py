from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.tiny_sets import write_coco_set, write_wider_set

from face_d2.data.coco import load_coco_faces, register_coco_faces
from face_d2.data.register import load_wider_face, register_wider_face

IMAGE = {"id": 7, "file_name": "a.jpg", "height": 60, "width": 80}
FACE = {"image_id": 7, "category_id": 3, "bbox": [1, 2, 30, 40]}
CATEGORIES = [{"id": 3, "name": "face"}, {"id": 4, "name": "dog"}]


def write(folder: Path, **parts: Any) -> Path:
    """A json, and the pictures that it lists."""
    content = {"images": [IMAGE], "annotations": [FACE], "categories": CATEGORIES, **parts}
    for image in content["images"] or []:
        if "file_name" in image:
            picture = folder / image["file_name"]
            picture.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(picture), np.zeros((60, 80, 3), np.uint8))
    file = folder / "faces.json"
    file.write_text(json.dumps(content))
    return file


def test_what_prepare_widerface_writes_is_read_back(repo: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("p", repo / "datasets" / "prepare_widerface.py")
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    text = write_wider_set(tmp_path, "val", 3)
    images = tmp_path / "WIDER_val" / "images"
    (tmp_path / "faces.json").write_text(json.dumps(prepare.to_coco(images, text)))
    assert load_coco_faces(tmp_path / "faces.json", images) == load_wider_face(images, text)


def test_registered_set(tmp_path: Path) -> None:
    file, images = write_coco_set(tmp_path, 2)
    name = f"coco_faces_{tmp_path.name}"
    for _ in range(2):
        register_coco_faces(name, file, images)
    records = DatasetCatalog.get(name)
    assert [r["image_id"] for r in records] == [f"{name}/1", f"{name}/2"]
    assert all(Path(r["file_name"]).is_file() for r in records)
    assert MetadataCatalog.get(name).evaluator_type == "widerface"


def test_other_categories_and_ignored_faces(tmp_path: Path) -> None:
    faces = [
        FACE,
        {**FACE, "category_id": 4},
        {**FACE, "bbox": [2, 2, 30, 40], "iscrowd": 1},
        {**FACE, "bbox": [5, 5, 0, 9]},
    ]
    (record,) = load_coco_faces(write(tmp_path, annotations=faces), tmp_path)
    assert [face["iscrowd"] for face in record["annotations"]] == [0, 1, 1]
    deep = {**IMAGE, "file_name": "b/c/d.png"}
    (record,) = load_coco_faces(write(tmp_path, images=[deep], annotations=[]), tmp_path)
    assert record["image_id"] == "b--c/d"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"images": None}, "NoneType"),
        ({"categories": CATEGORIES[1:]}, "category_id that is not in the list"),
        ({"categories": CATEGORIES[1:], "annotations": []}, "'dog'"),
        ({"images": [{"id": 7}]}, "needs id, file_name, height and width"),
        ({"images": [IMAGE, {**IMAGE, "file_name": "b.jpg"}]}, "share an id"),
        ({"annotations": [{**FACE, "image_id": 1}]}, "not listed"),
        ({"annotations": [{**FACE, "bbox": [1, 2, 3]}]}, "needs bbox"),
        ({"annotations": [{**FACE, "bbox": [1, 2, float("nan"), 3]}]}, "finite"),
    ],
)
def test_bad_file_is_an_error_that_names_it(
    tmp_path: Path, parts: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        load_coco_faces(write(tmp_path, **parts), tmp_path)
    assert "faces.json" in str(caught.value)


def test_no_json(tmp_path: Path) -> None:
    (tmp_path / "faces.json").write_text("<xml>")
    with pytest.raises(ValueError, match=r"faces\.json: not valid json"):
        load_coco_faces(tmp_path / "faces.json", tmp_path)


def test_a_size_that_is_not_the_images_own(tmp_path: Path) -> None:
    assert len(load_coco_faces(write(tmp_path), tmp_path)) == 1
    turned = {**IMAGE, "height": 80, "width": 60}
    with pytest.raises(ValueError, match=r"a\.jpg is 80 x 60 pixels \(upright\).* 60 x 80"):
        load_coco_faces(write(tmp_path, images=[turned]), tmp_path)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([1, 2, 30, 40], None),
        ([60, 20, 22, 42], None),  # two pixels: rounding
        ([60, 20, 75, 42], "1 of 1 boxes reach beyond"),  # x1, y1, x2, y2
        ([-10000, 2, 30, 40], "1 of 1 boxes reach beyond"),
        (None, "no faces"),
    ],
)
def test_odd_boxes_are_spoken_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, box: list[int] | None, words: str | None
) -> None:
    faces = [{**FACE, "bbox": box}] if box else []
    name = f"odd_boxes_{tmp_path.name}"
    register_coco_faces(name, write(tmp_path, annotations=faces), tmp_path)
    with caplog.at_level("WARNING", logger="face_d2.data.catalog"):
        DatasetCatalog.get(name)
    assert (words in caplog.text) if words else not caplog.text


def test_a_name_is_one_data_sets(tmp_path: Path) -> None:
    name = f"coco_taken_{tmp_path.name}"
    register_coco_faces(name, tmp_path / "one.json", tmp_path)
    with pytest.raises(ValueError, match=r"belongs to .*one\.json.* got .*two\.json"):
        register_coco_faces(name, tmp_path / "two.json", tmp_path)
    with pytest.raises(ValueError, match="'widerface_val' belongs"):
        register_wider_face("widerface_val", tmp_path, tmp_path / "own.txt")
