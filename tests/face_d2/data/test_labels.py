"""Labels of every form: read alike, recognized by looking, written again."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers.label_files import HEIGHT, WIDTH, WRITERS, Boxes, write_pictures
from PIL import Image

from face_d2.cli.check_dataset import main as check_main
from face_d2.data.catalog import register_data_sets
from face_d2.data.labels import FORMATS, Labels, read_labels
from face_d2.data.labels.notation import plain_name
from face_d2.data.labels.write import WRITERS as OUTPUTS
from face_d2.evaluation.wider_face.ground_truth import read_ground_truth


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Boxes]:
    root = tmp_path_factory.mktemp("pictures")
    return root, write_pictures(root)


def export(pictures: tuple[Path, Boxes], form: str, folder: Path) -> str:
    """A folder with the pictures and their labels in one form; gives its notation."""
    root, boxes = pictures
    shutil.copytree(root / "images", folder / "images")
    return WRITERS[form](folder, boxes)


def boxes_of(labels: Labels, root: Path) -> dict[str, list[tuple[float, ...]]]:
    return {
        Path(image.file)
        .relative_to(root / "images")
        .as_posix(): [tuple(box) for box in image.boxes.tolist()]
        for image in labels.images
    }


def test_there_is_an_export_for_every_form() -> None:
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("form", WRITERS)
def test_all_forms_give_the_same_boxes(
    pictures: tuple[Path, Boxes], tmp_path: Path, form: str
) -> None:
    notation = export(pictures, form, tmp_path)
    for text in (notation, str(tmp_path)):  # said, and recognized by looking
        labels = read_labels(text)
        assert labels.format == form
        assert boxes_of(labels, tmp_path) == pictures[1]
        assert {(image.height, image.width) for image in labels.images} == {(HEIGHT, WIDTH)}
        assert labels.ignored == 0
        assert not labels.findings.changed
        assert len({image.name for image in labels.images}) == len(pictures[1])


@pytest.mark.parametrize("target", OUTPUTS)
def test_what_convert_writes_is_read_back(
    repo: Path,
    pictures: tuple[Path, Boxes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    target: str,
) -> None:
    notation = export(pictures, "voc", tmp_path)
    convert = runpy.run_path(str(repo / "datasets" / "convert.py"))["main"]
    output = tmp_path / "converted"
    convert([notation, "--to", target, "--output", str(output)])
    printed = capsys.readouterr().out
    assert "60 images, 15 of them without a face; 90 faces" in printed
    again = read_labels(printed.splitlines()[-1].removeprefix("wrote "))
    found = {Path(i.file).stem: [tuple(b) for b in i.boxes.tolist()] for i in again.images}
    assert found == {Path(name).stem: boxes for name, boxes in pictures[1].items()}


def test_ignored_faces_are_kept_or_counted_by_convert(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}],
        "categories": [{"id": 1, "name": "face"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9]},
            {"image_id": 1, "category_id": 1, "bbox": [20, 2, 9, 9], "iscrowd": 1},
            {"image_id": 1, "category_id": 1, "bbox": [20, 22, 9, 9], "ignore": 1},
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    convert = runpy.run_path(str(repo / "datasets" / "convert.py"))["main"]
    ignored = {"coco": [False, True, True], "wider": [False, True, True], "yolo": [False]}
    for target, expected in ignored.items():
        words = [str(tmp_path / "a.json"), "--to", target, "--output", str(tmp_path / target)]
        convert(words)
        printed = capsys.readouterr().out
        again = read_labels(printed.splitlines()[-1].removeprefix("wrote "))
        assert again.images[0].ignored.tolist() == expected
        assert ("2 ignored faces are left out" in printed) == (target == "yolo")


def test_images_without_labels_do_not_become_background_in_yolo(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.jpg", "train/images/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 100)).save(tmp_path / name)
    file = tmp_path / "list.txt"
    row = "1\n40 30 20 40 0 0 0 0 0 0\n"
    file.write_text(f"a.png\n{row}train/images/a.png\n{row}")
    again = read_labels(OUTPUTS["yolo"](read_labels(f"wider:{file}:{tmp_path}"), tmp_path / "yolo"))
    assert [image.boxes.tolist() for image in again.images] == [[[40, 30, 20, 40]]] * 2
    (tmp_path / "b.jpg").write_bytes((tmp_path / "c.jpg").read_bytes())
    file.write_text(f"b.jpg\n{row}b.png\n{row}")
    with pytest.raises(ValueError, match=r"b\.jpg and \S+b\.png would have the same text file"):
        OUTPUTS["yolo"](read_labels(f"wider:{file}:{tmp_path}"), tmp_path / "other")


def test_a_notation_stands_for_a_data_set(pictures: tuple[Path, Boxes], tmp_path: Path) -> None:
    text = export(pictures, "coco", tmp_path)
    register_data_sets([text, text])
    records = DatasetCatalog.get(text)
    assert len(records) == 60
    assert records[0]["image_id"] == "hall/000"
    assert MetadataCatalog.get(text).evaluator_type == "widerface"
    assert plain_name("widerface_val") == "widerface_val"
    assert "/" not in plain_name(text)
    with pytest.raises(ValueError, match=r"'nowhere' is not registered.*FORMAT:LABELS:IMAGES"):
        register_data_sets(["nowhere"])


def test_a_path_with_a_colon_is_one_part_of_a_notation(
    pictures: tuple[Path, Boxes], tmp_path: Path
) -> None:
    folder = tmp_path / "2026-01-01 10:30:00"
    text = export(pictures, "coco", folder)
    assert boxes_of(read_labels(text), folder) == pictures[1]
    assert boxes_of(read_labels(f"{text}:face"), folder) == pictures[1]
    assert read_labels(f"coco:{folder / 'coco.json'}::face").faces == 90
    with pytest.raises(FileNotFoundError, match=r"C:/faces/a\.json: no such file or folder"):
        read_labels("coco:C:/faces/a.json:D:\\pictures")


def test_detections_are_scored_against_labels_of_any_form(
    pictures: tuple[Path, Boxes], tmp_path: Path
) -> None:
    notation = export(pictures, "labelme", tmp_path)
    truth = read_ground_truth(notation)
    assert len(truth) == 60
    faces = sum(map(len, pictures[1].values()))
    assert np.count_nonzero(truth.boxes[:, 2]) == faces


def test_check_dataset_reads_labels_of_any_form(
    pictures: tuple[Path, Boxes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notation = export(pictures, "cvat", tmp_path)
    assert check_main([notation]) == 0
    printed = capsys.readouterr().out
    assert "(cvat)" in printed
    assert "60 images, 90 faces" in printed


def test_faces_are_the_labels_called_face(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    shapes = [
        {"label": label, "points": [[1, 1], [9 + n, 9]], "shape_type": "rectangle"}
        for n, label in enumerate(["Face", "dog", "head"])
    ]

    def write(*kinds: str) -> None:
        chosen = [shape for shape in shapes if shape["label"] in kinds]
        (tmp_path / "a.json").write_text(json.dumps({"shapes": chosen, "imagePath": "a.png"}))

    write("Face", "dog", "head")
    labels = read_labels(tmp_path)
    assert labels.images[0].boxes.tolist() == [[1, 1, 8, 8]]
    assert labels.findings.counts == {"other_labels": 2}
    labels = read_labels(f"labelme:{tmp_path}:{tmp_path}:dog")
    assert labels.images[0].boxes.tolist() == [[1, 1, 9, 8]]
    write("dog", "head")
    with pytest.raises(ValueError, match=r"\['dog', 'head'\] is called face; .*:CATEGORY"):
        read_labels(tmp_path)
    write("head")
    labels = read_labels(tmp_path)
    assert labels.faces == 1
    said = "labels were read as faces although their class is not called face, for example 'head'"
    assert said in labels.summary()


def test_shapes_that_are_no_boxes_are_counted(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    shapes = [
        {"label": "face", "points": [[10, 10], [20, 12], [15, 30]], "shape_type": "polygon"},
        {"label": "face", "points": [[40, 30], [40, 40]], "shape_type": "circle"},
        {"label": "face", "points": [[60, 40], [69, 55]], "shape_type": "mask", "difficult": True},
        {"label": "face", "points": [[3, 3]], "shape_type": "point"},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.png"}))
    labels = read_labels(tmp_path)
    boxes = [[10, 10, 10, 20], [30, 20, 20, 20], [60, 40, 10, 16]]
    assert labels.images[0].boxes.tolist() == boxes
    assert labels.images[0].ignored.tolist() == [False, False, True]
    assert labels.findings.counts == {"around": 3, "no_box": 1}


def test_a_mask_of_cvat_is_read_as_its_box(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    (tmp_path / "cvat.xml").write_text(
        '<annotations><image name="a.png"><mask label="face" rle="3, 9, 3" left="10" top="20" '
        'width="5" height="3"/></image></annotations>'
    )
    labels = read_labels(tmp_path / "cvat.xml")
    assert labels.images[0].boxes.tolist() == [[10, 20, 5, 3]]
    assert labels.findings.counts == {"around": 1}


def test_shapes_of_cvat_are_read_as_the_boxes_around_them(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    (tmp_path / "cvat.xml").write_text(
        '<annotations><image name="a.png">'
        '<box label="face" xtl="20" ytl="10" xbr="40" ybr="20" rotation="90"/>'
        '<polygon label="face" points="1.5,2;9,4;5,12"/>'
        '<points label="face" points="3,3"/><tag label="face"/></image></annotations>'
    )
    labels = read_labels(tmp_path / "cvat.xml")
    expected = [[25, 5, 10, 20], [1.5, 2, 7.5, 10]]  # a box turns about its center
    np.testing.assert_allclose(labels.images[0].boxes, expected, atol=1e-9)
    assert labels.findings.counts == {"around": 2, "no_box": 1}
    assert "a.png: points" in labels.summary()


def test_a_turned_box_of_label_studio_is_read_as_the_box_around_it(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    value = {"x": 50, "y": 20, "width": 10, "height": 30, "rotation": 90}
    result = {
        "original_width": 200,
        "original_height": 100,
        "type": "rectanglelabels",
        "value": {**value, "rectanglelabels": ["face"]},
    }
    task = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": [result]}]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    # 20 x 30 pixels at (100, 20), turned clockwise by 90 degrees about that corner.
    labels = read_labels(tmp_path)
    assert labels.images[0].boxes.tolist() == [[70, 20, 30, 20]]
    assert labels.findings.counts == {"around": 1}


SIZE = {"original_width": 200, "original_height": 100}
REGION = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}


def label_studio(folder: Path, *results: dict[str, Any]) -> Labels:
    """The labels of one picture, 200 x 100, with one annotation."""
    Image.new("RGB", (200, 100)).save(folder / "a.png")
    task = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": results}]}
    (folder / "a.json").write_text(json.dumps([task]))
    return read_labels(folder)


def test_turned_ellipses_are_read_as_the_boxes_around_them(tmp_path: Path) -> None:
    value = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "ellipselabels": ["face"]}
    (tmp_path / "studio").mkdir()
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "a.png")
    outline = np.linspace(0, 2 * np.pi, 3600)
    for angle in (0, 30, 90, 135):
        result = {**SIZE, "value": {**value, "rotation": angle}}
        studio = label_studio(tmp_path / "studio", result)
        (tmp_path / "cvat.xml").write_text(
            '<annotations><image name="a.png"><ellipse label="face" cx="100" cy="50" rx="40" '
            f'ry="10" rotation="{angle}"/></image></annotations>'
        )
        turn = np.exp(1j * np.radians(angle)) * (40 * np.cos(outline) + 10j * np.sin(outline))
        w, h = np.ptp(turn.real), np.ptp(turn.imag)
        for labels in (studio, read_labels(tmp_path / "cvat.xml")):
            found = labels.images[0].boxes[0]
            np.testing.assert_allclose(found, [100 - w / 2, 50 - h / 2, w, h], atol=0.02)


def test_label_studio_repeats_a_region_for_its_label_and_its_descriptions(tmp_path: Path) -> None:
    dog, face = {**REGION, "x": 60}, REGION
    labels = label_studio(
        tmp_path,
        {**SIZE, "type": "rectanglelabels", "value": {**dog, "rectanglelabels": ["dog"]}},
        {**SIZE, "type": "choices", "value": {**dog, "choices": ["blurred"]}},
        {**SIZE, "type": "rectangle", "value": face},
        {**SIZE, "type": "labels", "value": {**face, "labels": ["calm", "face"]}},
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
    )
    assert labels.images[0].boxes.tolist() == [[20, 20, 60, 40]]
    assert labels.findings.counts == {"other_labels": 2}


def test_images_without_an_annotation_are_left_out(tmp_path: Path) -> None:
    label_studio(tmp_path)
    (task,) = json.loads((tmp_path / "a.json").read_text())
    made = [[{"result": []}], [], [{"result": [], "was_cancelled": True}]]
    for name in ("b.png", "c.png"):
        shutil.copy(tmp_path / "a.png", tmp_path / name)
    tasks = [
        {**task, "data": {"image": name}, "annotations": annotations}
        for name, annotations in zip(("a.png", "b.png", "c.png"), made)
    ]
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    labels = read_labels(tmp_path)
    assert [Path(image.file).name for image in labels.images] == ["a.png"]
    assert labels.findings.counts == {"no_annotation": 2}
    (tmp_path / "a.json").write_text(json.dumps(tasks[1:]))
    with pytest.raises(ValueError, match=r"none of the 2 tasks has an annotation"):
        read_labels(tmp_path)


def test_what_label_studio_exports_besides_boxes_is_counted(tmp_path: Path) -> None:
    point = {"x": 10, "y": 20, "width": 0.5, "keypointlabels": ["face"]}
    box = {**SIZE, "type": "rectanglelabels", "value": {**REGION, "rectanglelabels": ["face"]}}
    label_studio(tmp_path, box, {**SIZE, "type": "keypointlabels", "value": point})
    (task,) = json.loads((tmp_path / "a.json").read_text())
    task = {**task, "data": {"photograph": "a.png", "number": 3}, "predictions": [{"result": []}]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    labels = read_labels(tmp_path)
    assert labels.images[0].boxes.tolist() == [[20, 20, 60, 40]]
    assert labels.findings.counts == {"no_box": 1, "predictions": 1}
    assert "task 1: keypointlabels" in labels.summary()


def test_all_regions_of_a_json_min_are_read(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    outline = {"points": [[50, 50], [60, 50], [60, 70]], **SIZE, "polygonlabels": ["face"]}
    task = {
        "image": "a.png",
        "annotation_id": 1,
        "box": [{**REGION, **SIZE, "rectanglelabels": ["face"]}],
        "outline": [outline],
        "light": [{**REGION, "choices": ["dark", "warm"]}],
    }
    (tmp_path / "a.json").write_text(json.dumps([task]))
    labels = read_labels(tmp_path)
    assert labels.images[0].boxes.tolist() == [[20, 20, 60, 40], [100, 50, 20, 20]]


def test_frames_of_a_video_in_cvat_have_no_suffix(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "images" / "frame_000000.PNG")
    (tmp_path / "a.xml").write_text(
        '<annotations><image name="frame_000000"><box label="face" xtl="1" ytl="2" xbr="9" '
        'ybr="9"/></image></annotations>'
    )
    assert read_labels(tmp_path).images[0].boxes.tolist() == [[1, 2, 8, 7]]


def test_the_newest_of_several_annotations_counts(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")

    def annotation(x: int, **more: object) -> dict[str, object]:
        value = {"x": x, "y": 0, "width": 5, "height": 5, "rectanglelabels": ["face"]}
        return {"result": [{"type": "rectanglelabels", "value": value}], **more}

    made = [
        annotation(1, updated_at="2026-02-01"),
        annotation(2, updated_at="2026-03-01"),
        annotation(3, updated_at="2026-04-01", was_cancelled=True),
    ]
    for more, expected in (([], 2), ([annotation(4, ground_truth=True)], 4)):
        task = {"id": 1, "data": {"image": "a.png"}, "annotations": [*made, *more]}
        (tmp_path / "a.json").write_text(json.dumps([task]))
        labels = read_labels(tmp_path)
        assert labels.images[0].boxes.tolist() == [[expected, 0, 5, 5]]
        assert labels.findings.counts == {"annotators": 1}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("0 0.5 0.5 0.2 0.4", [40, 30, 20, 40]),
        ("0 0.5 0.5 0.2 0.4" + " 0.5" * 10, [40, 30, 20, 40]),  # five landmarks
        ("0 0.1 0.1 0.5 0.1 0.3 0.6", [10, 10, 40, 50]),  # an outline of three points
    ],
)
def test_rows_of_yolo(tmp_path: Path, row: str, expected: list[int]) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(f"{row}\n")
    assert read_labels(f"yolo:{tmp_path}").images[0].boxes.tolist() == [expected]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0 40 20 20 40", "these are probably pixels"),
        ("0 0.5 0.5 0.2 0.4 0.9", "line 1: .*expected 'class center_x"),  # with a confidence
        ("face 0.5 0.5 0.2 0.4", "line 1: expected numbers"),
        ("0 0.5 0.5 0.2 nan", "line 1: expected finite numbers"),
    ],
)
def test_other_rows_are_refused_by_line(tmp_path: Path, row: str, words: str) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(f"{row}\n")
    with pytest.raises(ValueError, match=words) as caught:
        read_labels(f"yolo:{tmp_path}")
    assert "a.txt" in str(caught.value)


def test_the_lists_of_darknet_are_no_labels(tmp_path: Path) -> None:
    (tmp_path / "obj_train_data").mkdir()
    Image.new("RGB", (100, 100)).save(tmp_path / "obj_train_data" / "a.png")
    (tmp_path / "obj_train_data" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "obj.names").write_text("face\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
    for text in (tmp_path, f"yolo:{tmp_path}"):
        assert read_labels(text).images[0].boxes.tolist() == [[40, 30, 20, 40]]


def test_linked_folders_of_labels_are_read_like_linked_folders_of_images(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "disk" / part / kind).mkdir(parents=True)
            (tmp_path / "faces" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "faces" / kind / part).symlink_to(tmp_path / "disk" / part / kind)
        Image.new("RGB", (100, 100)).save(tmp_path / "disk" / part / "images" / "a.png")
        (tmp_path / "disk" / part / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "faces" / "labels" / "loop").symlink_to(tmp_path / "faces")
    labels = read_labels(tmp_path / "faces")
    assert [image.boxes.tolist() for image in labels.images] == [[[40, 30, 20, 40]]] * 2


def test_text_files_of_another_case_belong_to_their_images(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "A.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    labels = read_labels(f"yolo:{tmp_path}")
    assert labels.images[0].boxes.tolist() == [[40, 30, 20, 40]]
    assert "unlabeled" not in labels.findings.counts
    (tmp_path / "b.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 .* for example b\.\*"):
        read_labels(f"yolo:{tmp_path}")
    (tmp_path / "b.txt").rename(tmp_path / "A.txt")
    with pytest.raises(ValueError, match=r"a\.txt: another text file has labels of the same image"):
        read_labels(f"yolo:{tmp_path}")


def test_cvat_for_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<annotations><track id="0" label="face"/></annotations>')
    with pytest.raises(ValueError, match=r"a\.xml: this is CVAT for video; export it as"):
        read_labels(tmp_path)


def test_what_is_no_labels_or_several_forms_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no labels of a known format .wider, coco, yolo"):
        read_labels(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such file or folder of labels"):
        read_labels(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such image folder"):
        read_labels(f"coco:{tmp_path}:{tmp_path / 'nowhere'}")
    coco = {"images": [], "annotations": [], "categories": []}
    (tmp_path / "one.json").write_text(json.dumps(coco))
    (tmp_path / "two.json").write_text(json.dumps(coco))
    with pytest.raises(ValueError, match=r"2 label files \(coco\): .*one.json.*two.json"):
        read_labels(tmp_path)
    (tmp_path / "label.txt").write_text("# a/b.jpg\n1 2 3 4\n")
    with pytest.raises(ValueError, match=r"several formats: coco .*; retinaface .*label.txt"):
        read_labels(tmp_path)
    with pytest.raises(ValueError, match=r"at most four parts"):
        read_labels("coco:a:b:c:d")


def test_labels_are_read_without_torch(pictures: tuple[Path, Boxes], tmp_path: Path) -> None:
    notation = export(pictures, "coco", tmp_path)
    code = (
        "import sys; from face_d2.data.labels import read_labels;"
        f"print(read_labels({notation!r}).summary());"
        "assert not {'torch', 'detectron2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "60 images" in done.stdout


def test_the_exports_of_another_library_are_read(
    pictures: tuple[Path, Boxes], tmp_path: Path
) -> None:
    globox = pytest.importorskip("globox", reason="globox is not installed (the extra [dev])")
    images = globox.AnnotationSet()
    for name, faces in pictures[1].items():
        boxes = [
            globox.BoundingBox(label="face", xmin=x, ymin=y, xmax=x + w, ymax=y + h)
            for x, y, w, h in faces
        ]
        images.add(globox.Annotation(image_id=name, image_size=(WIDTH, HEIGHT), boxes=boxes))
        for folder in ("voc", "labelme", "yolo/labels"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
    images.save_coco(tmp_path / "coco.json", auto_ids=True)
    images.save_cvat(tmp_path / "cvat.xml")
    images.save_pascal_voc(tmp_path / "voc")
    images.save_labelme(tmp_path / "labelme")
    images.save_yolo_v5(tmp_path / "yolo" / "labels", label_to_id={"face": 0})
    expected = {name: sorted(faces) for name, faces in pictures[1].items()}
    for text in ("coco:coco.json", "cvat:cvat.xml", "voc:voc", "labelme:labelme", "yolo:yolo"):
        form, _, labels = text.partition(":")
        read = read_labels(f"{form}:{tmp_path / labels}:{pictures[0] / 'images'}")
        found = {name: sorted(boxes) for name, boxes in boxes_of(read, pictures[0]).items()}
        assert found == expected, form
