"""Labels as people have them: faults that other projects' users reported, and their kind."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face_d2.data.image_size import image_sizes
from face_d2.data.labels import Labels, read_labels
from face_d2.data.labels.notation import is_labels_of_another_format
from face_d2.data.labels.write import WRITERS

HEIGHT, WIDTH = 168, 299


def picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "gray").save(path)
    return path


def coco(folder: Path, name: str = "a.jpg", **parts: Any) -> Path:
    """A json of one picture and one face."""
    content = {
        "images": [{"id": 1, "file_name": name, "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "face"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [40, 30, 40, 50]}],
        **parts,
    }
    file = folder / "c.json"
    file.write_text(json.dumps(content))
    return file


def read(file: Path, root: Path) -> Labels:
    return read_labels(f"coco:{file}:{root}")


def test_missing_pictures_are_refused_with_number_and_example(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "b.jpg")
    file = coco(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no/such/folder: no such image folder"):
        read(file, Path("no/such/folder"))
    with pytest.raises(FileNotFoundError, match=r"c\.json: 1 of 1 annotated images are missing"):
        read(file, tmp_path / "images")


@pytest.mark.parametrize(
    ("name", "there", "root", "hint"),
    [
        ("images/a.jpg", "images/a.jpg", "images", r"begin with images/ already; give \S+ as"),
        ("faces/a.jpg", "images/a.jpg", "images", r"without the leading faces/ of the names"),
        ("a.jpg", "images/x/a.jpg", "images", r"a\.jpg is in \S+images/x"),
        ("a.jpg", "a.jpg", "images", r"they are in \S+; give this folder"),
    ],
)
def test_the_hint_solves_it(tmp_path: Path, name: str, there: str, root: str, hint: str) -> None:
    picture(tmp_path / there)
    (tmp_path / root).mkdir(exist_ok=True)
    with pytest.raises(FileNotFoundError, match=hint):
        read(coco(tmp_path, name), tmp_path / root)


@pytest.mark.parametrize(
    ("name", "there", "kind"),
    [
        ("images\\a.jpg", "images/a.jpg", "windows"),
        (unicodedata.normalize("NFD", "é.jpg"), unicodedata.normalize("NFC", "é.jpg"), "unicode"),
        ("A.JPG", "a.jpg", "case"),
        ("Images\\A.jpg", "images/a.jpg", "case"),
        ("C:\\data\\faces\\images\\a.jpg", "images/a.jpg", "elsewhere"),
        ("/home/someone/faces/images/a.jpg", "images/a.jpg", "elsewhere"),
    ],
)
def test_names_of_other_systems_are_found_and_counted(
    tmp_path: Path, name: str, there: str, kind: str
) -> None:
    path = picture(tmp_path / there)
    labels = read(coco(tmp_path, name), tmp_path)
    assert labels.images[0].file == str(path)
    assert labels.findings.counts == {kind: 1}
    assert not labels.findings.changed


def test_official_lists_give_the_hint_too(tmp_path: Path) -> None:
    picture(tmp_path / "0--Parade" / "a.jpg")
    for name, hint in (
        ("0--parade/A.jpg", "in other upper and lower case"),
        ("0--Parade\\a.jpg", "backslashes"),
        ("images/0--Parade/a.jpg", "without the leading images/"),
    ):
        with pytest.raises(FileNotFoundError, match=f"1 of 1 .*{hint}"):
            image_sizes(tmp_path, [name])


def test_names_from_anywhere_have_a_name_in_evaluation(tmp_path: Path) -> None:
    outside = picture(tmp_path / "album" / "a.jpg")
    root = tmp_path / "images"
    picture(root / "b.jpg")
    for name in (str(outside), "../album/a.jpg"):
        labels = read(coco(tmp_path, name), root)
        assert labels.images[0].file == str(outside)
        assert labels.images[0].name == "album/a"
    assert read(coco(tmp_path, "b.jpg"), root).images[0].name == "images/b"


def test_a_picture_listed_twice_is_one_and_two_of_a_name_are_two(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    images = [
        {"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
        {"id": 2, "file_name": "./a.jpg", "width": WIDTH, "height": HEIGHT},
    ]
    faces = [
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]},
        {"image_id": 2, "category_id": 1, "bbox": [1, 2, 30, 40]},
        {"image_id": 2, "category_id": 1, "bbox": [50, 2, 30, 40]},
    ]
    labels = read(coco(tmp_path, images=images, annotations=faces), tmp_path)
    assert len(labels.images) == 1
    assert labels.images[0].boxes.tolist() == [[1, 2, 30, 40], [50, 2, 30, 40]]
    assert labels.findings.counts == {"listed_twice": 1, "repeated": 1}
    assert "1 images are listed more than once; their faces were merged" in labels.summary()
    picture(tmp_path / "a.png")
    images[1]["file_name"] = "a.png"
    labels = read(coco(tmp_path, images=images, annotations=faces), tmp_path)
    assert [len(image.boxes) for image in labels.images] == [1, 2]
    assert len({image.name for image in labels.images}) == 2


def test_boxes_drawn_from_right_to_left_are_turned_round_and_counted(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    boxes = [[90, 80, -30, -40], [10, 80, 30, -40], [5, 5, 0, 9]]
    faces = [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes]
    labels = read(coco(tmp_path, annotations=faces), tmp_path)
    assert labels.images[0].boxes.tolist() == [[60, 40, 30, 40], [10, 40, 30, 40], [5, 5, 0, 9]]
    assert labels.images[0].ignored.tolist() == [False, False, True]
    assert labels.findings.counts == {"turned": 2, "no_area": 1}
    assert labels.findings.changed
    assert "2 boxes of negative width or height were flipped, for example a.jpg: 90 80" in (
        labels.summary()
    )


def test_ids_are_compared_as_what_they_are(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    face = {"image_id": "1", "category_id": "1", "bbox": ["40", 30, 40, 50], "iscrowd": "0"}
    labels = read(coco(tmp_path, annotations=[face]), tmp_path)
    assert labels.faces == 1
    assert labels.ignored == 0
    categories = [{"id": "face", "name": "face"}]
    face = {**face, "category_id": "face", "iscrowd": None}
    assert read(coco(tmp_path, annotations=[face], categories=categories), tmp_path).faces == 1


@pytest.mark.parametrize("ids", [(2**53, 2**53 + 1), ("1e3", "10e2"), ("10", "0b10")])
def test_ids_that_only_floats_confuse_are_two(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    images = []
    for key, name in zip(ids, ("a.jpg", "b.jpg")):
        picture(tmp_path / name)
        images.append({"id": key, "file_name": name, "width": WIDTH, "height": HEIGHT})
    faces = [{"image_id": ids[1], "category_id": 1, "bbox": [40, 30, 40, 50]}]
    labels = read(coco(tmp_path, images=images, annotations=faces), tmp_path)
    assert [len(image.boxes) for image in labels.images] == [0, 1]


def test_annotations_of_a_category_that_is_not_listed_are_refused_with_their_number(
    tmp_path: Path,
) -> None:
    picture(tmp_path / "a.jpg")
    faces = [{"image_id": 1, "category_id": key, "bbox": [1, 1, 9, 9]} for key in (1, 2, 2)]
    with pytest.raises(ValueError, match=r"2 of 3 annotations have a category_id .* example 2;"):
        read(coco(tmp_path, annotations=faces), tmp_path)


def test_other_categories_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    categories = [{"id": 1, "name": "face"}, {"id": 2, "name": "dog"}]
    faces = [{"image_id": 1, "category_id": key, "bbox": [1, 1, 9, 9]} for key in (1, 2, 2)]
    labels = read(coco(tmp_path, annotations=faces, categories=categories), tmp_path)
    assert labels.faces == 1
    assert labels.findings.counts == {"other_labels": 2}


def test_a_byte_order_mark_is_no_part_of_a_json(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    file = coco(tmp_path)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read(file, tmp_path).faces == 1


def test_sizes_from_before_exif_turned_the_picture_are_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(
        ValueError, match=r"1 of 1 images .*168 x 299 .* without the EXIF orientation"
    ):
        read(coco(tmp_path), tmp_path)


def test_a_damaged_picture_is_counted_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no more")
    labels = read(coco(tmp_path), tmp_path)
    assert labels.findings.counts == {"unreadable": 1}
    assert (labels.images[0].height, labels.images[0].width) == (HEIGHT, WIDTH)


def test_negative_boxes_of_other_forms_are_turned_too(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "a.jpg")
    (tmp_path / "list.txt").write_text("a/a.jpg\n1\n90 80 -30 -40 0 0 0 0 0 0\n")
    (tmp_path / "a.xml").write_text(
        "<annotation><filename>a.jpg</filename><object><name>face</name><bndbox><xmin>90</xmin>"
        "<ymin>80</ymin><xmax>60</xmax><ymax>40</ymax></bndbox></object></annotation>"
    )
    (tmp_path / "cvat.xml").write_text(
        '<annotations><image name="a/a.jpg"><box label="face" xtl="90" ytl="80" xbr="60" ybr="40"/>'
        "</image></annotations>"
    )
    for text in (
        f"wider:{tmp_path / 'list.txt'}",
        f"voc:{tmp_path / 'a.xml'}:{tmp_path / 'a'}",
        f"cvat:{tmp_path / 'cvat.xml'}",
    ):
        labels = read_labels(text)
        np.testing.assert_array_equal(labels.images[0].boxes, [[60, 40, 30, 40]])
        assert labels.findings.counts == {"turned": 1}


def test_what_is_no_file_of_labels_is_named(tmp_path: Path) -> None:
    pointer = tmp_path / "c.json"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        ValueError, match=r"c\.json: not valid json \(it is a Git LFS pointer.*git lfs pull"
    ):
        read_labels(f"coco:{pointer}")
    pointer.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(ValueError, match=r"it is a web page, not the file"):
        read_labels(f"coco:{pointer}")
    pointer.write_text("{}", encoding="utf-16")
    with pytest.raises(ValueError, match=r"it is UTF-16 text; save it as UTF-8"):
        read_labels(f"coco:{pointer}")


@pytest.mark.parametrize("name", ["c.json", "c.xml", "c.txt"])
def test_what_is_wrong_with_a_damaged_file_is_said_without_its_format(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    file.write_text('{"images": [', encoding="utf-16" if name == "c.txt" else "utf-8")
    for path in (file, tmp_path):
        with pytest.raises(ValueError, match=rf"no labels of a known .*{name}.*: not "):
            read_labels(path)


def test_a_voc_object_without_an_upright_box_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(
        "<annotation><filename>a.jpg</filename><object><name>face</name><robndbox><cx>9</cx>"
        "</robndbox></object></annotation>"
    )
    with pytest.raises(ValueError, match=r"a\.xml, object 1: has no <bndbox> with xmin"):
        read_labels(tmp_path)


STUDIO = {"id": 7, "data": {"image": "a.png"}}


def studio(*results: Any) -> str:
    return json.dumps([{**STUDIO, "annotations": [{"result": list(results)}]}])


@pytest.mark.parametrize(
    ("form", "content", "words"),
    [
        ("labelme", "{}", r"c\.json: has no 'shapes'; expected LabelMe json"),
        ("labelme", '{"shapes": [{"label": "face"}]}', r"c\.json: a shape has no 'points'"),
        ("labelme", '{"shapes": [{"points": [[1, 2, 3]]}]}', r"c\.json: a point is not \[x, y\]"),
        ("labelstudio", "[]", r"c\.json: expected an export of Label Studio"),
        ("labelstudio", '[{"image": "a.png"}]', r"c\.json: expected an export of Label Studio"),
        ("labelstudio", '[{"id": 7, "data": "a.png"}]', r"task 7: expected the image's address as"),
        (
            "labelstudio",
            '[{"id": 7, "data": {"a": "a.png", "b": "b.png"}}]',
            r"task 7: expected the image's address as data\.image",
        ),
        (
            "labelstudio",
            '[{"id": 7, "data": {"image": "http://[::1/a.png"}, "annotations": [{"result": []}]}]',
            r"task 7: 'http://\[::1/a\.png' is not a URL",
        ),
        (
            "labelstudio",
            json.dumps([{**STUDIO, "annotations": {"result": []}}]),
            r"task 7: 'annotations' must be a list of objects",
        ),
        (
            "labelstudio",
            json.dumps([{**STUDIO, "annotations": [{"result": {}}]}]),
            r"task 7: 'result' must be a list of objects",
        ),
        ("labelstudio", studio({"value": 1}), r"task 7: a result has no 'value'"),
        (
            "labelstudio",
            studio({"value": {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 5}}),
            r"task 7: a rotated shape has no original_width and original_height",
        ),
        ("voc", "<svg/>", r"c\.xml: the root is <svg>; expected VOC's <annotation>"),
        ("cvat", "<annotations/>", r"c\.xml: expected CVAT for images: <annotations> with an"),
        ("cvat", "<annotations><image/></annotations>", r"c\.xml: an <image> has no name"),
        (
            "cvat",
            '<annotations><image name="a.png"><polygon points="1,2;3,4"/></image></annotations>',
            r"c\.xml: a\.png: a polygon has no points; expected three or more",
        ),
        ("retinaface", "#\n1 2 3 4\n", r"c\.txt, line 1: '#': expected the name of an image"),
        ("retinaface", "1 2 3 4\n", r"c\.txt, line 1: '1 2 3 4': expected '# event/file\.jpg'"),
        ("retinaface", "# a.png\n1 2 3\n", r"c\.txt, line 2: .* or a row of 4 or "),
        ("retinaface", "\n", r"c\.txt: has no line '# event/file\.jpg'"),
        ("yolo", "0 0.5 0.5 0.2 0.4\n", r"c\.txt: expected the folder of YOLO's text files"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_place(
    tmp_path: Path, form: str, content: str, words: str
) -> None:
    suffix = ".json" if content[0] in "[{" else ".xml" if content[0] == "<" else ".txt"
    file = tmp_path / f"c{suffix}"
    file.write_text(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_labels(f"{form}:{file}:{tmp_path}")
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"images": [], "annotations": []}, r"c\.json: the labels list no image"),
        ({"annotations": [5]}, r"c\.json: annotation 5: expected an object"),
        (
            {"images": [{"id": 1, "file_name": "", "width": 3, "height": 3}]},
            r"c\.json: image .*: file_name must be a non-empty string",
        ),
        (
            {"images": [{"id": 1, "file_name": n, "width": 3, "height": 3} for n in ("a", "b")]},
            r"c\.json: 'a' and 'b' share an id, 1; give each its own",
        ),
        (
            {
                "images": [
                    {"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
                    {"id": 2, "file_name": "a.jpg", "width": 80, "height": 60},
                ]
            },
            rf"a\.jpg is listed twice .*, with the sizes \[\(60, 80\), \({HEIGHT}, {WIDTH}",
        ),
    ],
)
def test_what_is_wrong_in_a_coco_json_is_said(
    tmp_path: Path, parts: dict[str, Any], words: str
) -> None:
    picture(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=words):
        read(coco(tmp_path, **parts), tmp_path)


def test_ids_that_python_wrote_as_floats_are_the_same(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    face = {"image_id": 1.0, "category_id": 1.0, "bbox": [40, 30, 40, 50]}
    assert read(coco(tmp_path, annotations=[face]), tmp_path).faces == 1


def test_a_picture_listed_twice_with_its_id_is_one(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    image = {"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}
    labels = read(coco(tmp_path, images=[image, image]), tmp_path)
    assert labels.images[0].boxes.tolist() == [[40, 30, 40, 50]]
    assert labels.findings.counts == {"listed_twice": 1}


def test_folders_without_the_labels_of_a_form_are_named(tmp_path: Path) -> None:
    for form, words in (
        ("coco", "contains no labels of the format coco"),
        ("voc", "contains no xml file; expected Pascal VOC's"),
        ("labelme", "contains no json file; expected LabelMe's"),
    ):
        with pytest.raises(ValueError, match=f"{tmp_path}: {words}"):
            read_labels(f"{form}:{tmp_path}:{tmp_path}")


def test_what_is_beside_labels_is_not_taken_for_labels(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    coco(tmp_path)
    (tmp_path / "notes.txt").write_text("buy milk\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other.json").write_text('[{"image": "a.jpg"}]')
    labels = read_labels(tmp_path)
    assert labels.format == "coco"
    assert labels.faces == 1
    with pytest.raises(ValueError, match=r"a\.jpg: contains no labels of a known format"):
        read_labels(tmp_path / "a.jpg")


def test_one_file_of_yolo_stands_for_its_folder(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (100, 100))
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "data.yaml").write_text("names: 5\n")  # of another program
    labels = read_labels(tmp_path / "a.txt")
    assert labels.source == tmp_path
    assert labels.images[0].boxes.tolist() == [[40, 30, 20, 40]]
    (tmp_path / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.3 0.6\n0 0.1 0.1 0.5 0.1 0.3 0.6 0.4\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 2: .*'0 0\.1 .*expected 'class center_x"):
        read_labels(f"yolo:{tmp_path}")
    landmarks = " 0.5" * 11
    (tmp_path / "a.txt").write_text(f"0 0.1 0.1 0.5 0.1 0.3 0.6\n0 0.1 0.1 0.5 0.1{landmarks}\n")
    with pytest.raises(ValueError, match=r"a\.txt, line 2: an outline has 15 numbers"):
        read_labels(f"yolo:{tmp_path}")


def test_a_damaged_picture_of_fractions_has_no_faces(tmp_path: Path) -> None:
    picture(tmp_path / "b.jpg")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no more")
    (tmp_path / "classes.txt").write_text("face\n")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("0 0.5 0.5 0.2 0.4\n")
    labels = read_labels(tmp_path)
    assert [len(image.boxes) for image in labels.images] == [0, 1]
    assert labels.findings.counts == {"unreadable": 1}
    with pytest.raises(ValueError, match=r"1 images cannot be read, .* unknown: \S+a\.jpg"):
        WRITERS["yolo"](labels, tmp_path / "yolo")


def test_yolo_is_not_written_for_pictures_of_several_folders(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "b.jpg")
    outside = picture(tmp_path / "album" / "a.jpg")
    labels = read(coco(tmp_path, str(outside)), tmp_path / "images")
    with pytest.raises(ValueError, match=rf"{outside} and 0 other images are outside"):
        WRITERS["yolo"](labels, tmp_path / "yolo")
    assert not (tmp_path / "yolo").exists()


def test_folders_whose_names_join_alike_give_distinct_names(tmp_path: Path) -> None:
    names = ("a--b/c.jpg", "a/b/c.jpg")
    images = []
    for number, name in enumerate(names):
        picture(tmp_path / name)
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
    labels = read(coco(tmp_path, images=images, annotations=[]), tmp_path)
    assert sorted(image.name for image in labels.images) == ["a--b/c.jpg", "a--b~2/c.jpg"]


def test_images_without_a_file_of_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name)
    (tmp_path / "a.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    labels = read_labels(tmp_path)
    assert [Path(image.file).name for image in labels.images] == ["a.jpg"]
    assert labels.findings.counts == {"left_out": 1}
    assert "1 images have no label file and are left out, for example b.jpg" in labels.summary()


def test_pictures_that_are_nowhere_are_missing_beside_the_labels(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"1 of 1 .* missing in {tmp_path}, .* a\.jpg"):
        read_labels(coco(tmp_path))


def test_a_link_that_leads_back_is_searched_once(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "x" / "a.png", (100, 100))
    (tmp_path / "images" / "x" / "back").symlink_to(tmp_path / "images")
    (tmp_path / "labels" / "x").mkdir(parents=True)
    (tmp_path / "labels" / "x" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    labels = read_labels(f"yolo:{tmp_path / 'labels'}")
    assert [image.boxes.tolist() for image in labels.images] == [[[40, 30, 20, 40]]]


@pytest.mark.parametrize(
    ("name", "content", "is_other"),
    [
        ("c.json", '{"images": [], "annotations": []}', True),
        ("list.txt", "a/b.jpg\n0\n", True),
        ("wider_face_val.mat", "", False),
        ("notes.md", "", False),
    ],
)
def test_folders_of_labels_are_told_from_official_ones(
    tmp_path: Path, name: str, content: str, is_other: bool
) -> None:
    assert not is_labels_of_another_format(str(tmp_path / "nowhere"))
    (tmp_path / name).write_text(content)
    assert is_labels_of_another_format(str(tmp_path)) is is_other
