"""Curves and contact sheets: files appear and show what they should."""

from __future__ import annotations

import dataclasses
import sys

import cv2
import numpy as np
import pytest

from face_d2.data.wider_face import WiderFaceImage
from face_d2.evaluation.fddb.protocol import FDDBResult
from face_d2.evaluation.wider_face.ground_truth import ground_truth_from_images
from face_d2.evaluation.wider_face.protocol import widerface_ap
from face_d2.visualization import plots, sheets

FACES = np.array([[20.0, 20, 60, 60], [120, 20, 60, 60], [20, 120, 15, 15]])


@pytest.fixture
def result():
    image = WiderFaceImage("0--E/a.jpg", FACES, np.zeros((3, 6), dtype=np.int64))
    rows = [[20, 20, 60, 60, 0.9], [200, 150, 30, 30, 0.8], [22, 120, 15, 15, 0.3]]
    return widerface_ap({"0--E/a": rows}, ground_truth_from_images([image], "one image"))


@pytest.fixture
def image_root(tmp_path):
    (tmp_path / "images" / "0--E").mkdir(parents=True)
    picture = np.full((200, 240, 3), 128, dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "0--E" / "a.jpg"), picture)
    return tmp_path / "images"


@pytest.mark.parametrize(
    "plot",
    [
        plots.plot_precision_recall,
        plots.plot_recall,
        plots.plot_ap_by_height,
        plots.plot_ap_by_attribute,
    ],
)
def test_figures_come_as_png_and_svg(plot, result, tmp_path):
    files = plot({"ours": result, "theirs": result}, tmp_path / "plots" / "figure.png")
    assert [file.suffix for file in files] == [".png", ".svg"]
    assert cv2.imread(str(files[0])).std() > 1  # not a blank page
    assert files[1].read_text().startswith("<?xml")
    first = files[1].read_bytes()
    plot({"ours": result, "theirs": result}, tmp_path / "plots" / "figure.png")
    assert files[1].read_bytes() == first
    with pytest.raises(ValueError, match="no result"):
        plot({}, tmp_path / "figure")


def test_roc_figure(tmp_path):
    roc = FDDBResult(
        thresholds=np.array([0.1, 0.9]),
        tp=np.array([8, 5]),
        fp=np.array([3, 0]),
        continuous_tp=np.array([6.0, 4.0]),
        faces=10,
        images=4,
        canvas="each image's own size",
    )
    files = plots.plot_roc({"ours": roc}, tmp_path / "roc")
    assert all(file.stat().st_size > 0 for file in files)
    with pytest.raises(ValueError, match="no result"):
        plots.plot_roc({}, tmp_path / "roc")


def test_plotting_leaves_pyplot_alone(result, tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    plots.plot_recall({"ours": result}, tmp_path / "recall")
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def _pixels(path, color):
    """How many pixels of a picture have nearly this color."""
    distance = np.abs(cv2.imread(str(path)).astype(int) - np.array(color)).max(axis=2)
    return int((distance < 12).sum())


def _item(detections):
    faces = np.concatenate([FACES[:, :2], FACES[:, :2] + FACES[:, 2:]], axis=1)
    picture = np.full((200, 240, 3), 128, dtype=np.uint8)
    return (picture, faces[:2], faces[2:], np.reshape(detections, (-1, 5)))


@pytest.mark.parametrize(
    ("detections", "colors"),
    [
        ([[20, 20, 80, 80, 0.9], [120, 20, 180, 80, 0.9]], {"found"}),
        ([[20, 20, 80, 80, 0.9]], {"found", "missed"}),
        ([[200, 100, 230, 130, 0.9], [20, 20, 80, 80, 0.3]], {"missed", "false"}),
        ([[20, 120, 35, 135, 0.9]], {"missed"}),
    ],
)
def test_sheet_shows_hits_misses_and_errors_in_their_colors(tmp_path, detections, colors):
    path = sheets.detection_sheet([_item(detections)] * 5, tmp_path / "sheets" / "all.png")
    empty = sheets.detection_sheet([_item([])] * 5, tmp_path / "none.png")
    drawn = {"found": (70, 190, 40), "missed": (0, 150, 255), "false": (40, 40, 230)}
    legend = {name: _pixels(empty, color) for name, color in drawn.items() if name != "missed"}
    legend["missed"] = legend["found"]
    found = {name for name, color in drawn.items() if _pixels(path, color) > 2 * legend[name] + 50}
    assert found == colors


def test_sheet_takes_images_of_any_shape_and_no_boxes(tmp_path):
    items = [
        (np.zeros((h, w, 3), dtype=np.uint8), [], [], []) for h, w in ((1, 900), (900, 2), (40, 40))
    ]
    picture = cv2.imread(str(sheets.detection_sheet(items, tmp_path / "s.png", cell=(100, 150))))
    assert picture.shape[1] > 3 * 150


def test_unusable_sheet_input_is_an_error(tmp_path, result):
    with pytest.raises(ValueError, match="no image"):
        sheets.detection_sheet([], tmp_path / "s.png")
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        sheets.detection_sheet([(np.zeros((5, 5)), [], [], [])], tmp_path / "s.png")
    with pytest.raises(FileNotFoundError, match=r"a\.jpg"):
        sheets.miss_sheet(result, tmp_path, tmp_path / "s.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match=r"folder\.png: could not be written"):
        sheets.detection_sheet([_item([])], tmp_path / "folder.png")


def test_a_caption_ends_within_its_cell():
    image = np.zeros((50, 120, 3), np.uint8)
    captions = [sheets._captioned(image, (60, 120), "found" * n)[:-60] for n in (1, 40)]
    paper = captions[0][0, 0]
    drawn = [np.flatnonzero((caption != paper).any(axis=(0, 2))) for caption in captions]
    assert 0 < drawn[0].max() < 60 < drawn[1].max() < 119


def test_attributes_that_are_unknown_are_not_plotted(result, tmp_path):
    truth = dataclasses.replace(result.ground_truth, attributes=None)
    other = widerface_ap({"0--E/a": [[20, 20, 60, 60, 0.9], [0, 0, 9, 9, 0.1]]}, truth)
    with pytest.raises(ValueError, match="the ground truth has no attributes"):
        plots.plot_ap_by_attribute({"ours": result, "theirs": other}, tmp_path / "figure")
    assert not list(tmp_path.glob("figure*"))


def test_error_sheets_show_the_errors(result, image_root, tmp_path):
    wrong = sheets.false_positive_sheet(result, image_root, tmp_path / "fp.png")
    assert _pixels(wrong, (40, 40, 230)) > 100
    missed = sheets.miss_sheet(result, image_root, tmp_path / "miss.png")
    assert _pixels(missed, (0, 150, 255)) > 100


def test_no_error_to_show_is_an_error(result, image_root, tmp_path):
    rows = [[*face, score] for face, score in zip(FACES, (0.9, 0.5, 0.1))]
    perfect = widerface_ap({"0--E/a": rows}, result.ground_truth)
    for sheet in (sheets.false_positive_sheet, sheets.miss_sheet):
        with pytest.raises(ValueError, match="no such error"):
            sheet(perfect, image_root, tmp_path / "s.png")
