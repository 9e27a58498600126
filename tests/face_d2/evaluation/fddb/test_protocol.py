"""The FDDB protocol: the official curves, the plain-loop reference, files, bad input."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references.fddb_reference import fddb_counts_reference

from face_d2.evaluation.fddb.files import read_fddb_detections, write_fddb_detections
from face_d2.evaluation.fddb.overlap import overlaps
from face_d2.evaluation.fddb.protocol import fddb_report, fddb_roc, format_fddb

CANVAS = (40, 48)
FACE = "10 7 1.5 20 20  1"


def write_folds(folder, first=FACE):
    """Ten folds of one image each, n/1 in fold n; that of fold 1 has the ellipses ``first``."""
    folder.mkdir(exist_ok=True)
    for fold in range(1, 11):
        faces = first.split("\n") if fold == 1 else [FACE]
        text = f"{fold}/1\n{len(faces)}\n" + "\n".join(faces) + "\n"
        (folder / f"FDDB-fold-{fold:02d}-ellipseList.txt").write_text(text)
    return folder


@pytest.fixture
def folds(tmp_path):
    return write_folds(tmp_path / "FDDB-folds")


def _score(rows, folds, **options):
    """Detections on the first image only."""
    mapping = {f"{fold}/1": [] for fold in range(2, 11)} | {"1/1": rows}
    return fddb_roc(mapping, folds, CANVAS, **options)


def _official(path):
    """The finite rows of an official ROC file."""
    rows = np.array([line.split() for line in path.read_text().splitlines()], dtype=float)
    return rows[:-1]


@pytest.mark.parametrize(("method", "tolerance"), [("jfda", 0), ("MTCNN", 2)])
def test_meets_the_official_curves(test_data, method, tolerance):
    folder = test_data / "fddb"
    result = fddb_roc(folder / "results" / f"{method}_detections.txt", folder / "FDDB-folds")
    discrete = _official(folder / "results" / f"{method}_DiscROC.txt")
    continuous = _official(folder / "results" / f"{method}_ContROC.txt")
    np.testing.assert_allclose(result.thresholds, discrete[:, 2], rtol=1e-5)
    assert np.abs(result.tp - discrete[:, 0] * result.faces).max() <= tolerance + 0.01
    assert np.abs(result.fp - discrete[:, 1]).max() <= tolerance
    assert np.abs(result.continuous_tp / result.faces - continuous[:, 0]).max() < 1e-3


def test_writes_the_official_text(test_data, tmp_path):
    folder = test_data / "fddb"
    result = fddb_roc(folder / "results" / "jfda_detections.txt", folder / "FDDB-folds")
    result.write(tmp_path, "jfda_")
    written = (tmp_path / "jfda_DiscROC.txt").read_text()
    assert written == (folder / "results" / "jfda_DiscROC.txt").read_text()
    assert (tmp_path / "jfda_ContROC.txt").read_text().splitlines()[-1] == "0 0"


def test_folds_add_up_to_the_whole(test_data):
    folder = test_data / "fddb"
    result = fddb_roc(folder / "results" / "jfda_detections.txt", folder / "FDDB-folds")
    assert [fold.images for fold in result.folds] == [
        290,
        285,
        274,
        302,
        298,
        302,
        279,
        276,
        259,
        280,
    ]
    assert sum(fold.faces for fold in result.folds) == result.faces == 5171
    assert sum(fold.tp[0] for fold in result.folds) == result.tp[0]
    assert sum(fold.fp[0] for fold in result.folds) == result.fp[0]


def _quarters(low, high):
    """Fractions, halves among them, so that every rounding shows."""
    return st.integers(4 * low, 4 * high).map(lambda number: number / 4)


_places, _radii = _quarters(-5, 45), _quarters(1, 15)
_ellipses = st.tuples(_radii, _radii, st.sampled_from([0.0, 0.4, 1.3, -2.0]), _places, _places)
_scores = st.sampled_from([0.1, 0.5, 0.9])
_rectangles = st.tuples(_places, _places, _quarters(0, 30), _quarters(0, 30))


@st.composite
def _images(draw):
    """Up to two images; rectangles or ellipses throughout, scores with ties."""
    shapes = draw(st.sampled_from([_rectangles, _ellipses]))
    rows = st.lists(st.tuples(shapes, _scores).map(lambda pair: (*pair[0], pair[1])), max_size=3)
    image = st.tuples(st.lists(_ellipses, min_size=1, max_size=2), rows)
    return draw(st.lists(image, min_size=1, max_size=2))


@settings(max_examples=40)
@given(_images())
def test_agrees_with_the_plain_loops(tmp_path_factory, images):
    folds = write_folds(tmp_path_factory.mktemp("folds"))
    for fold, (ellipses, _) in enumerate(images, start=1):
        lines = [" ".join(map(str, ellipse)) + "  1\n" for ellipse in ellipses]
        path = folds / f"FDDB-fold-{fold:02d}-ellipseList.txt"
        path.write_text(f"{fold}/1\n{len(lines)}\n{''.join(lines)}")
    mapping = {f"{fold}/1": [] for fold in range(1, 11)}
    mapping |= {f"{fold}/1": rows for fold, (_, rows) in enumerate(images, start=1)}
    result = fddb_roc(mapping, folds, CANVAS)
    expected = fddb_counts_reference(images, CANVAS)
    assert result.thresholds.tolist() == sorted(expected)
    for threshold, tp, fp, total in zip(
        result.thresholds, result.tp, result.fp, result.continuous_tp
    ):
        detections, fewest, most, largest = expected[threshold]
        assert fewest <= tp <= most
        assert tp + fp == detections
        assert total == pytest.approx(largest, abs=1e-9)


def test_assignment_maximizes_the_sum_not_the_best_pair(tmp_path):
    # Greedy matching would give the middle detection to one face and leave the other alone.
    folds = write_folds(tmp_path / "folds", "10 10 0 15 20 1\n10 10 0 27 20 1")
    middle, right = [11, 10, 20, 20, 0.9], [17, 10, 20, 20, 0.8]
    result = _score([middle, right], folds)
    assert result.tp[0] == 2


def test_overlap_of_exactly_one_half_is_no_discrete_match(tmp_path):
    # A pixel-sized ellipse (radii 0) in a rectangle of two pixels.
    folds = write_folds(tmp_path / "folds", "0.5 0.5 0 20 20 1")
    result = _score([[20, 20, 1, 0, 0.5]], folds)
    assert (result.tp[0], result.fp[0]) == (0, 1)
    assert result.continuous_tp[0] == pytest.approx(0.5)


def test_part_outside_the_canvas_does_not_count(tmp_path):
    folds = write_folds(tmp_path / "folds", "10 10 0 0 20 1")
    whole = _score([[-10, 10, 20, 20, 0.5]], folds)
    inside = _score([[0, 10, 10, 20, 0.5]], folds)
    assert whole.continuous_tp[0] == inside.continuous_tp[0] > 0.7


@pytest.mark.parametrize(
    "box", [(-30, 20, 9, 40), (20, -30, 40, 9), (100, 20, 9, 40), (20, 90, 40, 9)]
)
def test_what_lies_beside_the_canvas_overlaps_nothing(box):
    """The face fills the canvas of 90 x 100, so a column too many would show."""
    face = np.array([[300.0, 300.0, 0.0, 50.0, 45.0]])
    assert overlaps(np.array([box], dtype=float), face, (90, 100)).tolist() == [[0.0]]
    whole = np.array([[-5.0, -5.0, 200.0, 200.0]])
    assert overlaps(whole, face, (90, 100)).tolist() == [[1.0]]


def test_an_ellipse_equal_to_the_face_overlaps_wholly(folds):
    result = _score([[10, 7, 1.5, 20, 20, 0.3]], folds)
    assert result.continuous_tp[0] == pytest.approx(1.0)
    assert (result.discrete_at(0), result.continuous_at(0)) == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize("row", [(10, 7, 1.5, 3e9, 20), (10, 7, 0, 20, -1e300)])
def test_an_ellipse_far_off_the_canvas_overlaps_nothing(folds, row):
    result = _score([[*row, 0.9]], folds)
    assert (result.fp.tolist(), result.continuous_tp.tolist()) == ([1], [0.0])


def test_an_ellipse_of_any_size_fills_the_canvas(folds):
    sizes = (1e4, 1e12)
    first, second = (_score([[size, size, 0, 20, 20, 0.9]], folds) for size in sizes)
    assert first.continuous_tp[0] == second.continuous_tp[0] > 0


def test_a_byte_order_mark_is_no_part_of_the_name(tmp_path, folds):
    text = "1/1\n1\n10 7 1.5 20 20 0.3\n"
    (tmp_path / "found.txt").write_text(text, encoding="utf-8-sig")
    with pytest.warns(UserWarning, match="9 of 10 images have no entry"):
        assert fddb_roc(tmp_path / "found.txt", folds, CANVAS).tp.tolist() == [1]


def test_canvas_comes_from_the_images(tmp_path, folds):
    for fold in range(1, 11):
        (tmp_path / f"{fold}").mkdir()
        cv2.imwrite(str(tmp_path / f"{fold}" / "1.jpg"), np.zeros((*CANVAS, 3), dtype=np.uint8))
    rows = [[10, 10, 400, 20, 0.5]]
    from_images = fddb_roc(
        {f"{n}/1": rows if n == 1 else [] for n in range(1, 11)}, folds, image_root=tmp_path
    )
    assert from_images.continuous_tp[0] == _score(rows, folds).continuous_tp[0]
    assert from_images.protocol["canvas"] == "each image's own size"


def test_no_detection_at_all(folds, tmp_path):
    result = _score([], folds)
    assert len(result.thresholds) == 0
    assert (result.discrete_at(1000), result.continuous_at(1000)) == (0.0, 0.0)
    result.write(tmp_path)
    assert (tmp_path / "DiscROC.txt").read_text() == "0 0 1.79769e+308\n"


def test_value_at_false_positives_reads_the_curve(folds, tmp_path):
    rows = [[10, 10, 14, 20, 0.9], *([40, 0, 5, 5, 0.8 - n / 100] for n in range(5))]
    result = _score(rows, folds)
    assert result.discrete_at(0) == result.discrete_at(3) == pytest.approx(0.1)
    assert result.fp.tolist() == [5, 4, 3, 2, 1, 0]
    result.write(tmp_path)
    written = [line.split()[:2] for line in (tmp_path / "DiscROC.txt").read_text().splitlines()]
    assert written == [*(["0.1", str(number)] for number in (5, 4, 3, 2, 1, 0)), ["0", "0"]]


def test_report_and_text_carry_figures_and_protocol(folds):
    result = _score([[10, 10, 14, 20, 0.9]], folds)
    report = fddb_report(result, {"NMS": "0.5"})
    assert report["disc@1000"] == report["disc@2000"] == pytest.approx(10.0)
    assert len(report["folds"]) == 10
    assert report["protocol"] == {
        "NMS": "0.5",
        "ground truth": "FDDB ellipses, 10 images, 10 faces",
        "canvas": "40 x 48 px for every image",
    }
    assert "NMS" in format_fddb(result, {"NMS": "0.5"})


def test_missing_image_warns(folds):
    with pytest.warns(UserWarning, match=r"10 of 10 images have no entry.*1/1"):
        fddb_roc({}, folds)


def test_detections_survive_the_file(tmp_path):
    rows = {"1/1": np.array([[1.25, 2, 3, 4, 0.1]]), "2/1": np.zeros((0, 5))}
    write_fddb_detections(rows, tmp_path / "found.txt")
    again = read_fddb_detections(tmp_path / "found.txt", ["1/1", "2/1"])
    np.testing.assert_array_equal(again["1/1"], rows["1/1"])
    assert again["2/1"].shape == (0, 5)


def test_blank_lines_at_the_end_are_no_image(tmp_path):
    (tmp_path / "found.txt").write_text("1/1\n1\n1 2 3 4 0.5\n\n\n")
    found = read_fddb_detections(tmp_path / "found.txt", ["1/1", "2/1"])
    assert {name: rows.tolist() for name, rows in found.items()} == {"1/1": [[1, 2, 3, 4, 0.5]]}


def test_detections_in_fractions_are_named(folds):
    rows = [[0.1, 0.1, 0.2, 0.3, 0.9 - n / 100] for n in range(10)]
    with pytest.warns(UserWarning, match="none of the 10 detections is longer than a pixel"):
        _score(rows, folds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1/1\n1\n1 2 3 4\n", r"line 3: expected 'x y w h score' or"),
        ("1/1\n1\n1 2 3 4 five\n", "line 3: expected"),
        (f"1/1\n1\n{'x ' * 2000}\n", r"found '[x ]{1,200}'\.\.\.\.$"),
        ("1/1\n2\n1 2 3 4 0.5\n1 2 3 4 5 0.5\n", "line 4: expected"),
        ("1/1\n2\n1 2 3 4 0.5\n", "announces 2 rows, the file ends after 1"),
        ("1/1\nmany\n", "line 2: expected the number of detections on 1/1"),
        ("1/1\n1\n1 2 3 4 nan\n", r"1/1 \(line 1\), row 1: a number that is not finite"),
        ("1/1\n1\n1 2 -3 4 0.5\n", r"row 1: a negative size"),
        ("9/9\n0\n", "'9/9' is no image of FDDB's folds"),
        ("1/1\n0\n1/1\n0\n", "'1/1' is there twice"),
        ("1/1\n1\n1 2 3 4 0.5\n2/1\n1\n1 2 3 4 5 0.5\n", "after 'x y w h score'"),
    ],
)
def test_malformed_detections_are_errors(tmp_path, folds, text, message):
    path = tmp_path / "found.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        fddb_roc(path, folds)


def test_other_bad_input_is_an_error(tmp_path, folds):
    with pytest.raises(FileNotFoundError, match="no such file of detections"):
        fddb_roc(tmp_path / "nowhere.txt", folds)
    with pytest.raises(ValueError, match="canvas"):
        fddb_roc({}, folds, canvas=(0, 450))
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        _score([[1, 2, 3]], folds)
    with pytest.raises(ValueError, match="row 1: a number that is not finite"):
        _score([[1, 2, 3, 4, math.inf]], folds)
