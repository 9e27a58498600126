"""Damaged annotation and prediction files: read, or refused with an error that names the file."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from face_d2.data.fddb import read_fold
from face_d2.data.labels import read_labels
from face_d2.data.wider_face import read_annotations, read_file_list
from face_d2.evaluation.fddb.files import read_fddb_detections
from face_d2.evaluation.wider_face.files import read_predictions

WIDER = """0--Parade/a.jpg
2
10 20 30 40 0 0 0 0 0 0
50 60 7 8 2 1 1 1 2 1
0--Parade/b.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/c.jpg
1
1 2 3 4 0 0 0 0 0 0
"""
FOLD = """2002/08/11/big/img_591
1
123.583300 85.549500 1.265839 269.693400 161.781200  1
2002/08/26/big/img_265
2
67.363819 44.511485 -1.476417 105.249970 87.209036  1
41.936870 27.064477 1.471906 184.070915 129.345601  1
"""
LIST = "0--Parade/a.jpg\n1--Handshaking/c.jpg\n"
FOUND = "a\n2\n1.5 2.5 30 40 0.9\n5 6 7 8 0.25\n"
FDDB_FOUND = "2002/08/11/big/img_591\n1\n1 2 3 4 0.5\n2002/08/26/big/img_265\n0\n"

_COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}],
    "categories": [{"id": 1, "name": "face"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [5.5, 6, 7, 8]},
    ],
}
_LABELME = {
    "shapes": [
        {"label": "face", "points": [[1, 2], [31, 42]], "shape_type": "rectangle"},
        {"label": "face", "points": [[1, 2], [9, 9], [4, 7]], "shape_type": "polygon"},
    ],
    "imagePath": "..\\images\\a.png",
    "imageHeight": 60,
    "imageWidth": 80,
}
_VALUE = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["face"]}
_STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/1/0123abcd-a.png"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [
                    {
                        "original_width": 80,
                        "original_height": 60,
                        "type": "rectanglelabels",
                        "value": _VALUE,
                    }
                ],
            }
        ],
    }
]
_VOC = """<annotation><filename>a.png</filename><size><width>80</width><height>60</height></size>
<object><name>face</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin>
<xmax>31</xmax><ymax>42</ymax></bndbox></object></annotation>"""
_CVAT = """<annotations><image id="0" name="a.png" width="80" height="60">
<box label="face" xtl="1.0" ytl="2.0" xbr="31.0" ybr="42.0"/>
<polygon label="face" points="1,2;9,9;4,7"/></image></annotations>"""


def read_form(form: str, path: Path) -> object:
    """Reads a file of labels whose one picture is there."""
    picture = path.parent / "images" / "a.png"
    if not picture.exists():
        picture.parent.mkdir()
        Image.new("RGB", (80, 60)).save(picture)
    labels = path.parent if form == "yolo" else path
    return read_labels(f"{form}:{labels}:{picture.parent}")


#: Form of labels -> a small file of it, and its name.
LABELS = {
    "wider": ("a.png\n1\n1 2 30 40 0 0 0 0 0 0\n", "l/list.txt"),
    "coco": (json.dumps(_COCO), "l/a.json"),
    "yolo": ("0 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.5 0.1 0.3 0.6\n", "l/a.txt"),
    "voc": (_VOC, "l/a.xml"),
    "labelme": (json.dumps(_LABELME), "l/a.json"),
    "cvat": (_CVAT, "l/cvat.xml"),
    "labelstudio": (json.dumps(_STUDIO), "l/studio.json"),
    "retinaface": ("# a.png\n1 2 30 40\n5 6 7 8" + " -1" * 15 + " 0.4\n", "l/label.txt"),
}

PARSERS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "annotations": (WIDER, "bbx_gt.txt", read_annotations),
    "file list": (LIST, "list.txt", read_file_list),
    "fold": (FOLD, "fold.txt", read_fold),
    "predictions": (FOUND, "0--Parade/a.txt", lambda path: read_predictions(path.parent.parent)),
    "FDDB detections": (
        FDDB_FOUND,
        "found.txt",
        lambda path: read_fddb_detections(
            path, ["2002/08/11/big/img_591", "2002/08/26/big/img_265"]
        ),
    ),
}
#: Those whose second line is a number of rows.
COUNTED = tuple(PARSERS)
PARSERS |= {
    f"labels {form}": (text, name, partial(read_form, form))
    for form, (text, name) in LABELS.items()
}
_NASTY = [
    "999999999",
    "9" * 5000,
    "-1",
    "nan",
    "inf",
    "1e308",
    "1e-400",
    "\0",
    "\n",
    "\r",
    "²",
    "٣",
]
_NASTY += ["..", "../../etc/passwd", "a/b.jpg", "-0", "0x10", "1_0", "\ud7ff", "\x85", " ", "\x1c"]

mutations = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.floats(0, 0.3),
        st.one_of(
            st.sampled_from([text.encode() for text in _NASTY]),
            st.binary(max_size=8),
            st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass")),
            st.floats(0, 1),  # a copy of another part
        ),
    ),
    min_size=1,
    max_size=6,
)


def mutate(text: str, changes: list[tuple[float, float, bytes | float]]) -> bytes:
    """Each change puts something in place of a part of the text."""
    data = text.encode()
    for where, length, new in changes:
        start = round(where * len(data))
        end = start + round(length * len(data))
        if isinstance(new, float):
            at = round(new * len(data))
            new = data[at : at + end - start + 20]
        data = data[:start] + new + data[end:]
    return data


def read_or_refuse(kind: str, data: bytes, folder: Path) -> bool:
    """Whether the damaged file was read; fails on any error but one that names the file."""
    _, name, parser = PARSERS[kind]
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    refusal = None
    try:
        parser(path)
    except (FileNotFoundError, ValueError) as error:  # a picture of another name is missing
        refusal = str(error)
    assert refusal is None or str(folder) in refusal, refusal
    return refusal is None


@pytest.mark.parametrize("kind", PARSERS)
def test_the_undamaged_file_is_read(kind: str, tmp_path: Path) -> None:
    assert read_or_refuse(kind, PARSERS[kind][0].encode(), tmp_path)


@pytest.mark.parametrize(
    "examples", [300, pytest.param(20_000, marks=pytest.mark.long)], ids=["short", "long"]
)
@pytest.mark.parametrize("kind", PARSERS)
def test_damage_is_read_or_refused(kind: str, examples: int, tmp_path: Path) -> None:
    @settings(
        max_examples=examples, deadline=2000, suppress_health_check=list(HealthCheck), database=None
    )
    @given(changes=mutations)
    def check(changes: list[tuple[float, float, bytes | float]]) -> None:
        read_or_refuse(kind, mutate(PARSERS[kind][0], changes), tmp_path)

    check()


@pytest.mark.parametrize("kind", COUNTED)
def test_a_huge_count_reserves_no_memory(kind: str, tmp_path: Path) -> None:
    lines = PARSERS[kind][0].split("\n")
    lines[1] = "900000000"
    tracemalloc.start()
    try:
        assert not read_or_refuse(kind, "\n".join(lines).encode(), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
