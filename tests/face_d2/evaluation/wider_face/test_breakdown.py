"""Breakdowns, errors, intervals and reports of WIDER FACE results."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from helpers.wider_face_scenes import scenes
from hypothesis import given
from hypothesis import strategies as st
from references.wider_face_reference import widerface_ap_reference

from face_d2.data.wider_face import WiderFaceImage
from face_d2.evaluation.wider_face.breakdown import (
    HEIGHT_BORDERS,
    bootstrap_intervals,
    height_classes,
)
from face_d2.evaluation.wider_face.ground_truth import ground_truth_from_images
from face_d2.evaluation.wider_face.protocol import widerface_ap
from face_d2.evaluation.wider_face.report import format_widerface, widerface_report, write_json

pytestmark = pytest.mark.filterwarnings("ignore:all .* scores equal")


def _image(name, *faces):
    """Faces given as (x, y, side) or (x, y, side, attributes in the file's order)."""
    boxes = np.array([[x, y, side, side] for x, y, side, *_ in faces], dtype=float)
    attributes = np.array([face[3] if len(face) > 3 else [0] * 6 for face in faces], dtype=np.int64)
    return WiderFaceImage(name, boxes.reshape(-1, 4), attributes.reshape(-1, 6))


@pytest.fixture
def result():
    """Two images: a found face, a badly placed box, a duplicate, background, two misses."""
    truth = ground_truth_from_images(
        [
            _image("0--E/a.jpg", (0, 0, 100), (300, 0, 40, [2, 0, 0, 0, 2, 0])),
            _image("0--E/b.jpg", (0, 0, 12, [1, 1, 1, 0, 1, 1]), (500, 500, 60)),
        ],
        "two images",
    )
    found = {
        "0--E/a": [
            [0, 0, 100, 100, 0.9],
            [2, 0, 100, 100, 0.8],
            [320, 0, 40, 40, 0.7],
            [700, 0, 9, 9, 0.6],
        ],
        "0--E/b": [[500, 500, 60, 60, 0.5], [900, 0, 9, 9, 0.1]],
    }
    return widerface_ap(found, truth, bootstrap=200)


def test_false_positives_are_listed_by_score_with_their_kind(result):
    errors = result.false_positives(10)
    assert [(error.image, error.score, error.kind) for error in errors] == [
        ("0--E/a", 0.8, "duplicate"),
        ("0--E/a", 0.7, "localisation"),
        ("0--E/a", 0.6, "background"),
        ("0--E/b", 0.1, "background"),
    ]
    assert errors[0].box == (2.0, 0.0, 100.0, 100.0)
    assert len(result.false_positives(2)) == 2


def test_overlap_of_half_a_pixel_is_an_overlap():
    """Sides count one pixel more: 0.5 x 1 pixels are shared by 101 x 101 and 10 x 1."""
    truth = ground_truth_from_images([_image("0--E/a.jpg", (0, 0, 100))], "one image")
    found = {"0--E/a": [[0, 0, 100, 100, 0.9], [100.5, 50, 9, 0, 0.8]]}
    (error,) = widerface_ap(found, truth).false_positives(10)
    assert error.iou == pytest.approx(0.5 / (101 * 101 + 10 - 0.5), rel=1e-12)


def test_false_positives_per_image(result):
    curve = result.curves["hard"]
    # Three of image a (the small box on nothing, the duplicate, the misplaced one), one of image b.
    assert curve.false_positives_per_image[-1] == 4 / 2
    assert 3 / 2 in curve.false_positives_per_image
    assert curve.false_positives_per_image[0] == 0


def test_misses_are_listed_by_height_with_their_attributes(result):
    misses = result.misses(10)
    assert [(miss.image, miss.box[3]) for miss in misses] == [("0--E/a", 40.0), ("0--E/b", 12.0)]
    assert misses[0].attributes["blur"] == "heavy"
    assert misses[0].attributes["occlusion"] == "heavy"
    assert misses[1].attributes["pose"] == "atypical"
    assert [miss.box[3] for miss in result.misses(10, "easy")] == []


def test_an_unknown_value_of_an_attribute_is_named_so():
    truth = ground_truth_from_images([_image("0--E/a.jpg", (0, 0, 40, [7, 0, 0, 0, 3, 2]))], "one")
    (miss,) = widerface_ap({"0--E/a": np.zeros((0, 5))}, truth).misses(1)
    unknown = {name for name, value in miss.attributes.items() if value == "unknown"}
    assert unknown == {"blur", "occlusion", "pose"}


def test_breakdowns_cover_every_face_once(result):
    kept = result.ground_truth.kept["hard"].sum()
    assert sum(curve.faces for curve in result.by_height().values()) == kept
    for classes in result.by_attribute().values():
        assert sum(curve.faces for curve in classes.values()) == kept
    assert result.by_height()["50-100"].recall[-1] == 1.0
    assert result.by_attribute()["blur"]["heavy"].ap == 0.0


def test_borders_of_the_height_classes():
    heights = np.array([0.5, 15, 15.5, 20, 200.5, 300, 301])
    members = {label: heights[of].tolist() for label, of in height_classes(heights)}
    expected = {"0-15": [0.5, 15], "15-20": [15.5, 20], "200-300": [200.5, 300], ">300": [301]}
    assert {label: found for label, found in members.items() if found} == expected


@given(scenes())
def test_height_classes_agree_with_the_plain_loops(scene):
    truth = scene.ground_truth()
    curves = widerface_ap(scene.predictions(), truth).by_height("hard")
    for low, high in pairwise(HEIGHT_BORDERS):
        members = {
            image: {i for i in scene.kept["hard"][image] if low < boxes[i][3] <= high}
            for image, boxes in scene.faces.items()
        }
        expected = widerface_ap_reference(scene.detections, scene.faces, members)
        label = f"{low}-{high}"
        if any(members.values()):
            assert curves[label].ap == pytest.approx(expected, abs=1e-12)
        else:
            assert label not in curves


@given(scenes())
def test_without_attributes_there_is_no_such_breakdown(scene):
    result = widerface_ap(scene.predictions(), scene.ground_truth())
    assert result.by_attribute() == {}
    assert all(miss.attributes == {} for miss in result.misses(5))


@given(scenes(max_images=3), st.integers(0, 2**32 - 1))
def test_interval_of_copies_of_one_image_is_a_point(scene, seed):
    image = next(iter(scene.faces))
    copies = [f"{image}/{n}" for n in range(3)]
    repeated = type(scene)(
        {copy: scene.faces[image] for copy in copies},
        {s: {copy: kept[image] for copy in copies} for s, kept in scene.kept.items()},
        {copy: scene.detections[image] for copy in copies},
    )
    result = widerface_ap(repeated.predictions(), repeated.ground_truth(), bootstrap=5, seed=seed)
    for setting, interval in result.intervals.items():
        expected = [result[f"AP_{setting}"]] * 2
        np.testing.assert_allclose(interval, expected, atol=1e-12)


def test_interval_spans_what_resampled_images_score():
    # One image is perfect, one is empty-handed: resamplings score 0, about 1/2, or 1.
    truth = ground_truth_from_images(
        [_image("0--E/a.jpg", (0, 0, 60)), _image("0--E/b.jpg", (0, 0, 60))], "two"
    )
    rows = {"0--E/a": [[0, 0, 60, 60, 0.9], [0, 0, 60, 60, 0.95]], "0--E/b": []}
    result = widerface_ap(rows, truth, bootstrap=400)
    low, high = result.intervals["easy"]
    assert low == 0.0
    assert high == pytest.approx(1.0)
    assert low < result["AP_easy"] < high


def test_thresholds_are_in_the_detectors_scores():
    """At every one, as many proposals as there are detections of that score or more."""
    truth = ground_truth_from_images([_image("0--E/a.jpg", (0, 0, 60))], "one")
    scores = np.array([-3.3, -1.23, -1.22, 0.4, 2.17, 5.0])
    rows = [[100 * n, 0, 60, 60, score] for n, score in enumerate(scores)]
    curve = widerface_ap({"0--E/a": rows}, truth).curves["easy"]
    assert curve.thresholds[-1] == pytest.approx(-3.3)
    # The strictest is a thousandth of the range below the best score.
    assert curve.thresholds[0] == pytest.approx(5.0 - 8.3 / 1000)
    assert (np.diff(curve.thresholds) < 0).all()
    expected = (scores[:, None] >= curve.thresholds - 1e-9).sum(axis=0)
    np.testing.assert_array_equal(curve.proposals, expected)


def test_tails_of_an_interval():
    """Ten images, one of them found: by (9/10)^10, a third of all resamplings leave it out."""
    names = [f"0--E/{n}" for n in range(10)]
    truth = ground_truth_from_images([_image(f"{name}.jpg", (0, 0, 60)) for name in names], "ten")
    rows = {name: [] for name in names}
    rows[names[0]] = [[0, 0, 60, 60, 0.9], [0, 0, 60, 60, 0.95]]
    matches = widerface_ap(rows, truth).matches
    by_level = {
        level: bootstrap_intervals(matches, truth, samples=2000, seed=0, level=level)["easy"]
        for level in (0.2, 0.5, 0.9)
    }
    lows, highs = zip(*by_level.values())
    # Tails of 40, 25 and 5 %: only the first is beyond the third of resamplings that score 0.
    assert lows[0] > 0
    assert lows[1:] == (0, 0)
    # Drawn k of 10 times the image scores about k / 10; k is 2 or less in 93 % of all.
    assert highs[0] == pytest.approx(0.1, abs=0.01)
    assert highs[2] == pytest.approx(0.3, abs=0.01)


def test_same_seed_gives_the_same_intervals(result):
    rows = {"0--E/a": [[0, 0, 100, 100, 0.9]], "0--E/b": [[5, 5, 9, 9, 0.1]]}
    first, again = (
        widerface_ap(rows, result.ground_truth, bootstrap=50, seed=3).intervals for _ in range(2)
    )
    assert first == again


def test_a_result_in_print_has_figures_and_intervals(result):
    rows = {"0--E/a": [[0, 0, 100, 100, 0.9]], "0--E/b": [[5, 5, 9, 9, 0.1]]}
    with_intervals = widerface_ap(rows, result.ground_truth, bootstrap=20)
    low, high = with_intervals.intervals["easy"]
    figure = f"AP_easy {with_intervals['AP_easy']:.5f}"
    assert f"{figure} [{low:.3f}, {high:.3f}]" in str(with_intervals)
    assert f"{figure}  AP_medium" in str(widerface_ap(rows, result.ground_truth))
    for key in ("AP_all", "easy"):
        with pytest.raises(KeyError, match=key):
            result[key]


def test_report_holds_figures_protocol_and_errors(result, tmp_path):
    report = widerface_report(result, {"NMS": "0.5"})
    assert report["AP_hard"] == pytest.approx(100 * result["AP_hard"])
    assert report["recall"]["easy"] == pytest.approx(100.0)
    assert report["protocol"]["NMS"] == "0.5"
    assert report["protocol"]["detections"] == "6, at most 4 an image, scores 0.1 to 0.9"
    assert "approximated" in report["protocol"]["ground truth"]
    write_json(report, tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["false_positives"][0]["kind"] == "duplicate"
    assert read["by_height"]["50-100"]["faces"] == 2
    assert read["interval_95"]["easy"][0] <= read["AP_easy"] <= read["interval_95"]["easy"][1]


def test_text_report_names_figures_and_protocol(result):
    text = format_widerface(widerface_report(result, {"image size": "original"}))
    assert "hard" in text
    assert "95 % interval" in text
    assert "Hard, by occlusion" in text
    assert "image size" in text
    assert "two images" in text


def test_undefined_figures_become_null(tmp_path):
    truth = ground_truth_from_images([_image("0--E/a.jpg", (0, 0, 20))], "small faces only")
    result = widerface_ap({"0--E/a": [[0, 0, 20, 20, 0.3]]}, truth, bootstrap=5)
    report = widerface_report(result, {})
    assert math.isnan(report["AP_easy"])
    write_json(report, tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["AP_easy"] is None
    assert read["interval_95"]["easy"] == [None, None]
    assert read["AP_hard"] == pytest.approx(100.0)
