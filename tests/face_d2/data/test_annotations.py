from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from face_d2.data.wider_face import ATTRIBUTES, read_annotations, read_file_list, unusable_faces

GOOD = """0--Parade/a.jpg
2
10 20 30 40 0 1 0 0 2 1\x20
5 6 0 8 2 0 1 1 0 0
1--Handshaking/none.jpg
0
0 0 0 0 0 0 0 0 0 0\x20
1--Handshaking/lone.jpg
1
0 0 0 0 0 0 0 0 0 0\x20
1--Handshaking/b.jpg
1
1 2 3 4 0 0 0 1 0 0
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "wider_face_val_bbx_gt.txt"
    path.write_text(text)
    return path


def test_a_byte_order_mark_is_no_part_of_the_name(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + GOOD)
    assert read_annotations(path)[0].name == "0--Parade/a.jpg"


def test_reads_faces_attributes_and_both_face_free_forms(tmp_path: Path) -> None:
    images = read_annotations(write(tmp_path, GOOD))
    assert [image.name for image in images] == [
        "0--Parade/a.jpg",
        "1--Handshaking/none.jpg",
        "1--Handshaking/lone.jpg",
        "1--Handshaking/b.jpg",
    ]
    assert [len(image.boxes) for image in images] == [2, 0, 0, 1]
    assert images[0].boxes.tolist() == [[10, 20, 30, 40], [5, 6, 0, 8]]
    first = dict(zip(ATTRIBUTES, images[0].attributes[0].tolist()))
    assert first == {
        "blur": 0,
        "expression": 1,
        "illumination": 0,
        "invalid": 0,
        "occlusion": 2,
        "pose": 1,
    }
    assert unusable_faces(images[0]).tolist() == [False, True]  # no width
    assert unusable_faces(images[3]).tolist() == [True]  # marked invalid


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("0--P/a.jpg\n1\n1 2 3\n", "line 3: '1 2 3'", "10 numbers, a face of 0--P/a.jpg"),
        ("0--P/a.jpg\n1\n1 2 x 4 0 0 0 0 0 0\n", "line 3", "10 numbers"),
        ("0--P/a.jpg\n1\n1 2 nan 4 0 0 0 0 0 0\n", "line 3", "finite"),
        ("0--P/a.jpg\n-1\n", "line 2: '-1'", "number of faces"),
        ("0--P/a.jpg\ntwo\n", "line 2: 'two'", "number of faces"),
        ("a.jpg\n0\n", "line 1: 'a.jpg'", "image name"),
        ("0--P/../a.jpg\n0\n", "line 1", "image name"),
        ("0--P/a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", "the file ends early", "10 numbers"),
        ("0--P/a.jpg\n", "the file ends early", "number of faces"),
        ("0--P/a.jpg\n0\n1 2 3 4 0 0 0 0 0 0\n", "line 3", "should be all zero"),
        ("0--P/a.jpg\n0\n" + "0 " * 10 + "\n0--P/a.jpg\n0\n", "line 4", "listed in line 1"),
        ("0--P/a.jpg\n0\n0--P/b.jpg\n0\n", "line 3: '0--P/b.jpg'", "10 zeros, which WIDER"),
        ('{"images": [{"file_name": "0--P/a.jpg"}]}\n', "line 1: '{", "image name like 0--P"),
        ("", "", "lists no image"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, text: str, where: str, what: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        read_annotations(path)
    assert where in str(error.value)
    assert what in str(error.value)


def test_a_long_line_is_not_quoted_whole(tmp_path: Path) -> None:
    path = write(tmp_path, '{"images": ' + "[0, 1]" * 1000)
    with pytest.raises(ValueError, match=r"line 1: '.{80}'\.\.\.: expected") as error:
        read_annotations(path)
    assert len(str(error.value)) < 200 + len(str(path))


def test_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="wider_face_split"):
        read_annotations(tmp_path / "nothing.txt")


def test_list_of_the_test_set(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("0--P/a.jpg\n\n1--H/b.jpg\n")
    assert read_file_list(path) == ["0--P/a.jpg", "1--H/b.jpg"]
    path.write_text("0--P/a.jpg\nnonsense\n")
    with pytest.raises(ValueError, match="line 2: 'nonsense'"):
        read_file_list(path)


def test_official_val_text(test_data: Path) -> None:
    """3,226 images and 39,708 rows, 4 of them dummies of face-free images."""
    path = test_data / "widerface_predictions" / "wider_face_val_bbx_gt.txt"
    images = read_annotations(path)
    assert len(images) == 3226
    assert sum(len(image.boxes) for image in images) == 39708 - 4
    assert sum(len(image.boxes) == 0 for image in images) == 4
    assert max(len(image.boxes) for image in images) == 709
    attributes = np.concatenate([image.attributes for image in images])
    counts = {name: np.bincount(attributes[:, i]).tolist() for i, name in enumerate(ATTRIBUTES)}
    # The .mat file's label counts include the 4 dummy rows, whose labels are all 0.
    assert counts["blur"] == [5686 - 4, 10381, 23641]
    assert counts["occlusion"] == [23812 - 4, 7185, 8711]
    assert counts["invalid"][1] == 585
