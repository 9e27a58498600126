"""The pass over a data set: every kind of fault is found, named, and gone from the cleaned list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import status_of
from helpers.image_files import READABLE, UNREADABLE, encoded, picture
from helpers.label_files import write_coco, write_pictures

from face_d2.cli.check_dataset import main
from face_d2.data import check as check_module
from face_d2.data.check import BoxProblem, check_dataset
from face_d2.data.clean import changes_file, write_cleaned
from face_d2.data.wider_face import read_annotations

GOOD = "10 10 20 20 1 0 0 0 2 1"
# Of an 80 x 48 picture.
BOXES = [
    GOOD,
    "5 5 0 8 0 0 0 0 0 0",
    "80 10 9 9 0 0 0 0 0 0",
    GOOD,
    "-5 -6 20 20 0 0 0 1 0 0",
    "70 40 30.5 20 0 0 0 0 0 0",
    "60 28 20 20 0 0 0 0 0 0",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set with one image of every kind, called by it."""
    images = {
        "good": encoded(picture(), "JPEG"),
        "boxes": encoded(picture(48, 80).rotate(180), "JPEG"),
        "empty": encoded(picture(40, 40), "JPEG"),
        "twin": encoded(picture(), "JPEG", comment=b"other bytes, same pixels"),
        "turned": READABLE["exif-rotated"][0](),
        **{name: content() for name, content in UNREADABLE.items()},
    }
    (tmp_path / "images" / "0--Event").mkdir(parents=True)
    lines = []
    for name, content in images.items():
        (tmp_path / "images" / "0--Event" / f"{name}.jpg").write_bytes(content)
        rows = {"boxes": BOXES, "empty": []}.get(name, [GOOD])
        lines += [f"0--Event/{name}.jpg", str(len(rows)), *(rows or ["0 " * 10])]
    lines += ["0--Event/missing.jpg", "1", GOOD]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_fault_is_found(folder: Path, workers: int) -> None:
    images = read_annotations(folder / "list.txt")
    check = check_dataset(folder / "images", images, workers=workers, progress=False)
    assert [image.name for image in check.images] == [image.name for image in images]
    found = {Path(image.name).stem: image for image in check.images}
    problems = {name: image.problem for name, image in found.items() if image.problem}
    expected = {"twin": "duplicate", "missing": "missing"} | dict.fromkeys(UNREADABLE, "unreadable")
    assert problems == expected
    assert found["twin"].detail == "of 0--Event/good.jpg"
    assert "400000000 pixels" in found["jpeg-bomb"].detail
    assert [name for name, image in found.items() if image.turned] == ["turned"]
    assert found["boxes"].boxes == (
        BoxProblem(2, "degenerate", (5, 5, 0, 8)),
        BoxProblem(3, "outside", (80, 10, 9, 9)),
        BoxProblem(4, "repeated", (10, 10, 20, 20)),
        BoxProblem(5, "over_border", (-5, -6, 20, 20), (0, 0, 15, 14)),
        BoxProblem(6, "over_border", (70, 40, 30.5, 20), (70, 40, 10, 8)),
    )
    assert check.image_counts == {
        **{"missing": 1, "unreadable": len(UNREADABLE), "size": 0, "duplicate": 1}
    }
    assert check.box_counts == {"degenerate": 1, "outside": 1, "repeated": 1, "over_border": 2}
    assert not check.clean


def test_a_size_that_is_not_the_headers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = np.zeros((9, 9, 3), np.uint8)
    monkeypatch.setattr(check_module, "read_image", lambda path: small)
    images = [i for i in read_annotations(folder / "list.txt") if "good" in i.name]
    (image,) = check_dataset(folder / "images", images, progress=False).images
    assert image.problem == "size"
    assert image.detail == "header 48 x 80, decoded 9 x 9 (height x width)"


def test_the_cleaned_list_is_clean_and_says_what_was_done(folder: Path) -> None:
    images = read_annotations(folder / "list.txt")
    check = check_dataset(folder / "images", images, progress=False)
    cleaned = folder / "cleaned.txt"
    changes = write_cleaned(cleaned, images, check)
    kept = read_annotations(cleaned)
    assert check_dataset(folder / "images", kept, progress=False).clean
    assert [Path(image.name).stem for image in kept] == ["good", "boxes", "empty", "turned"]
    assert cleaned.read_text().splitlines()[3:8] == [
        *("0--Event/boxes.jpg", "4", GOOD, "0 0 15 14 0 0 0 1 0 0", "70 40 10 8 0 0 0 0 0 0")
    ]
    assert len(kept[2].boxes) == 0
    said = changes_file(cleaned).read_text().splitlines()
    assert len(said) == changes == 5 + 2 + len(UNREADABLE)
    assert "0--Event/boxes.jpg, face 2, 5 5 0 8: left out, a side of 0 or less" in said
    assert "0--Event/boxes.jpg, face 5, -5 -6 20 20: cut to 0 0 15 14, partly outside" in str(said)
    assert any(line.startswith("0--Event/text.jpg: left out, not an image") for line in said)


def test_a_list_without_faults_stays_as_it_is(folder: Path) -> None:
    text = f"0--Event/good.jpg\n1\n{GOOD}\n0--Event/empty.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
    (folder / "list.txt").write_text(text)
    arguments = ["--images", str(folder / "images"), "--annotations", str(folder / "list.txt")]
    assert main([*arguments, "--cleaned", str(folder / "cleaned.txt")]) == 0
    assert (folder / "cleaned.txt").read_text() == text
    assert changes_file(folder / "cleaned.txt").read_text() == ""


def test_a_list_with_nothing_left_is_not_written(folder: Path) -> None:
    images = [i for i in read_annotations(folder / "list.txt") if i.name.endswith("/text.jpg")]
    check = check_dataset(folder / "images", images, progress=False)
    with pytest.raises(ValueError, match="each of the 1 images has a problem"):
        write_cleaned(folder / "cleaned.txt", images, check)
    assert not (folder / "cleaned.txt").exists()


def test_the_command(folder: Path, repo: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", str(repo / "tools" / "check_dataset.py")),
            *("--images", str(folder / "images"), "--annotations", str(folder / "list.txt")),
            *("--json", str(folder / "report.json"), "--cleaned", str(folder / "cleaned.txt")),
        ],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(repo), "PATH": ""},
    )
    assert done.returncode == 1, done.stderr
    assert f"{len(UNREADABLE):6} images  unreadable" in done.stdout
    assert "0--Event/boxes.jpg, face 2: 5 5 0 8" in done.stdout
    assert "images/s" in done.stderr  # the bar
    report = json.loads((folder / "report.json").read_text())
    assert report["image_problems"]["unreadable"] == len(UNREADABLE)
    assert report["turned_by_exif"] == 1
    assert {"name", "problem", "detail", "boxes"} <= set(report["findings"][0])
    assert (folder / "cleaned.txt").is_file()


def test_registered_sets(test_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from face_d2.data.register import register_wider_face

    widerface = test_data / "widerface"
    register_wider_face(
        "checked_val",
        widerface / "WIDER_val" / "images",
        widerface / "wider_face_split" / "wider_face_val_bbx_gt.txt",
    )
    assert main(["checked_val"]) == 0
    assert "114 images, 1,580 faces" in capsys.readouterr().out


def test_labels_of_another_form_and_what_was_changed_when_they_were_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = write_pictures(tmp_path, 6)
    clean = write_coco(tmp_path, boxes)
    report = tmp_path / "report.json"
    assert main([clean, "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert (found["images"], found["faces"]) == (6, sum(map(len, boxes.values())))
    assert found["changed_when_read"] == {}
    assert found["list"] == str(tmp_path / "coco.json")
    content = json.loads((tmp_path / "coco.json").read_text())
    content["annotations"][0]["bbox"] = [90, 60, 30, 30]  # of 96 x 72 pixels
    (tmp_path / "coco.json").write_text(json.dumps(content))
    assert main([clean, "--json", str(report)]) == 1
    assert json.loads(report.read_text())["changed_when_read"] == {"outside": 1}


def test_a_registered_set_whose_list_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from face_d2.data.register import register_wider_face

    name = f"unlisted_{tmp_path.name}"
    register_wider_face(name, tmp_path, tmp_path / "list_bbx_gt.txt")
    assert status_of(main, [name]) == 2
    assert str(tmp_path / "list_bbx_gt.txt") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give the name"),
        (["widerface_val", "--images", "x"], "give the name"),
        (["--images", "x"], "give the name"),
        (["--images", "x", "--annotations", "y"], "x: no such folder"),
        (["nowhere"], "'nowhere' is neither a registered data set nor a path.*widerface_train"),
        (["widerface_test"], "has no annotations"),
        (["widerface_val", "--workers", "-1"], "--workers is -1"),
    ],
)
def test_impossible_commands_are_explained(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_it_needs_neither_torch_nor_detectron2() -> None:
    code = (
        "import sys, face_d2.cli.check_dataset as c\n"
        "assert not {'torch', 'detectron2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
