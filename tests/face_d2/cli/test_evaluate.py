"""The command lines: what they print, write and refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.commands import status_of
from PIL import Image

from face_d2.cli.evaluate import fddb_main, widerface_main
from face_d2.data.register import register_wider_face
from face_d2.evaluation.wider_face.files import write_predictions

ANNOTATIONS = """0--E/a.jpg
1
100 100 60 60 0 0 0 0 0 0
0--E/b.jpg
0
0 0 0 0 0 0 0 0 0 0
"""


@pytest.fixture
def truth(tmp_path):
    (tmp_path / "tiny_bbx_gt.txt").write_text(ANNOTATIONS)
    return str(tmp_path / "tiny_bbx_gt.txt")


@pytest.fixture
def found(tmp_path):
    rows = {"0--E/a": [[100, 100, 60, 60, 0.5]], "0--E/b": [[5, 5, 20, 20, 0.9]]}
    return str(write_predictions(rows, tmp_path / "found"))


@pytest.fixture
def folds(tmp_path):
    folder = tmp_path / "FDDB-folds"
    folder.mkdir()
    for fold in range(1, 11):
        text = f"{fold}/1\n1\n20 15 1.5 40 40  1\n"
        (folder / f"FDDB-fold-{fold:02d}-ellipseList.txt").write_text(text)
    return str(folder)


def test_widerface_prints_figures_with_their_protocol(found, truth, tmp_path, capsys):
    options = ["--json", f"{tmp_path}/o.json", "--protocol", "image size=longer side 640"]
    widerface_main([found, truth, *options])
    text = capsys.readouterr().out
    assert "easy            50.00" in text
    assert "longer side 640" in text
    assert "approximated" in text
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["AP_easy"] == pytest.approx(50.0)
    assert report["protocol"]["image size"] == "longer side 640"
    assert report["protocol"]["NMS"] == "not stated"


def test_widerface_on_a_list_of_images(found, truth, tmp_path, capsys):
    # As an editor on Windows writes it, with a byte order mark.
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf0--E/a.jpg\r\n")
    images = ["--images", f"{tmp_path}/list.txt", "--subset-name", "the half", "--bootstrap", "0"]
    widerface_main([found, truth, *images])
    captured = capsys.readouterr()
    assert "easy           100.00" in captured.out
    assert "the half (1 of 2 images)" in captured.out
    assert "warning: all 1 scores equal 0.5" in captured.err


def test_a_listed_name_without_its_event_is_not_left_out(found, truth, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("0--E/a.jpg\nb.jpg\n")
    assert widerface_main([found, truth, "--images", f"{tmp_path}/list.txt"]) == 1
    assert "1 of the images asked for are not in the ground truth" in capsys.readouterr().err


def test_a_registered_set_is_a_ground_truth(found, truth, tmp_path, capsys):
    register_wider_face(f"tiny_{tmp_path.name}", tmp_path, truth)
    report = tmp_path / "report.json"
    (tmp_path / "0--E").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (400, 400)).save(tmp_path / "0--E" / f"{name}.jpg")
    for name in (truth, f"tiny_{tmp_path.name}"):
        assert widerface_main([found, name, "--bootstrap", "0", "--json", str(report)]) == 0
        figures = json.loads(report.read_text())
        assert [figures[f"AP_{s}"] for s in ("easy", "medium", "hard")] == pytest.approx([50] * 3)


@pytest.mark.parametrize(
    ("rows", "sheets"),
    [
        ([[300, 300, 60, 60, 0.5]], {"false_positives.png", "misses.png"}),
        ([[100, 100, 60, 60, 0.5]], set()),
    ],
)
def test_curves_are_plotted_and_errors_drawn_on_sheets(rows, sheets, truth, tmp_path, capsys):
    found = str(write_predictions({"0--E/a": rows, "0--E/b": []}, tmp_path / "found"))
    (tmp_path / "images" / "0--E").mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (400, 400)).save(tmp_path / "images" / "0--E" / f"{name}.jpg")
    plots = ["--plots", f"{tmp_path}/plots", "--bootstrap", "0"]
    assert widerface_main([found, truth, *plots, "--image-root", f"{tmp_path}/images"]) == 0
    written = {path.name for path in (tmp_path / "plots").iterdir()}
    curves = ("precision_recall", "recall", "ap_by_height", "ap_by_attribute")
    assert written == {f"{name}.{form}" for name in curves for form in ("png", "svg")} | sheets
    printed = capsys.readouterr().out
    assert all(f"wrote {tmp_path / 'plots' / name}\n" in printed for name in written)


def test_fddb_prints_and_writes(folds, tmp_path, capsys):
    rows = "".join(f"{n}/1\n1\n25 20 30 40 {n / 20}\n" for n in range(1, 11))
    (tmp_path / "found.txt").write_text(rows)
    outputs = [
        "--roc",
        f"{tmp_path}/roc",
        "--json",
        f"{tmp_path}/o.json",
        "--plots",
        f"{tmp_path}/p",
    ]
    fddb_main([f"{tmp_path}/found.txt", folds, "--canvas", "90", "80", *outputs])
    text = capsys.readouterr().out
    assert "100.00" in text
    assert "90 x 80 px for every image" in text
    assert len(np.loadtxt(tmp_path / "roc" / "DiscROC.txt")) == 11
    assert json.loads((tmp_path / "o.json").read_text())["disc@1000"] == pytest.approx(100.0)
    assert {path.name for path in (tmp_path / "p").iterdir()} == {"fddb_roc.png", "fddb_roc.svg"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere", "TRUTH"], 1, "error: nowhere: no such folder or archive"),
        (["FOUND", "nowhere"], 1, "error: nowhere: no such ground truth"),
        (["FOUND", "TRUTH", "--protocol", "NMS"], 2, "error: --protocol 'NMS': expected KEY=VALUE"),
        (
            ["FOUND", "TRUTH", "--bootstrap", "-1"],
            2,
            "error: argument --bootstrap: -1: expected a whole number, 0 or more",
        ),
        (["FOUND", "TRUTH", "--bootstrap", "many"], 2, "many: expected a whole number, 0 or more"),
        (["FOUND", "UNLABELED"], 1, "' has no labels."),
        (["FOUND", "TRUTH", "--image-root", "x"], 2, "--image-root needs --plots DIR"),
        (["FOUND", "TRUTH", "--images", "nowhere"], 1, "No such file"),
    ],
)
def test_widerface_refuses_bad_input_in_one_line(
    found, truth, tmp_path, capsys, arguments, status, message
):
    unlabeled = f"unlabeled_{tmp_path.name}"
    register_wider_face(unlabeled, tmp_path, tmp_path / "list.txt", annotated=False)
    given = [
        {"FOUND": found, "TRUTH": truth, "UNLABELED": unlabeled}.get(argument, argument)
        for argument in arguments
    ]
    assert status_of(widerface_main, given) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_fddb_refuses_bad_input_in_one_line(folds, capsys):
    assert fddb_main(["nowhere", folds]) == 1
    assert capsys.readouterr().err == "error: nowhere: no such file of detections.\n"
