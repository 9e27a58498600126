"""The WIDER FACE protocol: the published figures, the plain-loop reference, bad input."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from helpers.wider_face_scenes import scenes
from hypothesis import given
from hypothesis import strategies as st
from references.wider_face_reference import widerface_ap_reference
from scipy.io import savemat

from face_d2.data.wider_face import WiderFaceImage
from face_d2.evaluation.wider_face.files import read_predictions
from face_d2.evaluation.wider_face.ground_truth import (
    SETTINGS,
    ground_truth_from_images,
    read_ground_truth,
)
from face_d2.evaluation.wider_face.matching import average_precision
from face_d2.evaluation.wider_face.protocol import widerface_ap

PUBLISHED = {"AP_easy": 0.93249, "AP_medium": 0.91279, "AP_hard": 0.82972}


@pytest.fixture(scope="module")
def official(test_data):
    return read_ground_truth(test_data / "widerface" / "eval_tools" / "ground_truth")


@pytest.fixture(scope="module")
def public_predictions(test_data):
    return read_predictions(next((test_data / "widerface_predictions").glob("*.tar.gz")))


def test_official_lists_keep_the_known_numbers_of_faces(official):
    assert (len(official), len(official.boxes)) == (3226, 39708)
    assert [official.kept[setting].sum() for setting in SETTINGS] == [7211, 13319, 31958]
    image = official.image_of_face()
    without = [3226 - len(np.unique(image[official.kept[setting]])) for setting in SETTINGS]
    assert without == [622, 207, 7]
    assert "2017" in official.source


def test_public_predictions_score_as_published(official, public_predictions):
    result = widerface_ap(public_predictions, official)
    assert dict(result) == pytest.approx(PUBLISHED, abs=1e-5)


@pytest.mark.parametrize("order", ["ascending", "random"])
def test_order_of_rows_does_not_matter(official, public_predictions, order):
    generator = np.random.default_rng(0)
    shuffled = {
        name: rows[
            np.argsort(rows[:, 4]) if order == "ascending" else generator.permutation(len(rows))
        ]
        for name, rows in reversed(public_predictions.items())
    }
    assert dict(widerface_ap(shuffled, official)) == dict(
        widerface_ap(public_predictions, official)
    )


def test_text_ground_truth_is_named_an_approximation(test_data, public_predictions):
    text = test_data / "widerface_predictions" / "wider_face_val_bbx_gt.txt"
    result = widerface_ap(public_predictions, text)
    assert "approximated" in result.protocol["ground truth"]
    assert dict(result) == pytest.approx(PUBLISHED, abs=0.01)


@given(scenes())
def test_agrees_with_the_plain_loops(scene):
    result = _quietly(scene.predictions(), scene.ground_truth())
    for setting in SETTINGS:
        expected = widerface_ap_reference(scene.detections, scene.faces, scene.kept[setting])
        assert result[f"AP_{setting}"] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(scenes(), st.randoms(use_true_random=False))
def test_any_order_of_rows_gives_the_same_result(scene, random):
    shuffled = dict(scene.detections)
    for rows in shuffled.values():
        random.shuffle(rows)
    first = _quietly(scene.predictions(), scene.ground_truth())
    again = _quietly({k: np.reshape(v, (-1, 5)) for k, v in shuffled.items()}, scene.ground_truth())
    np.testing.assert_array_equal(list(first.values()), list(again.values()))


@given(scenes(max_images=5))
def test_a_subset_is_scored_as_if_alone(scene):
    chosen = list(scene.faces)[::2]
    result = _quietly(scene.predictions(), scene.ground_truth(), images=chosen)
    for setting in SETTINGS:
        expected = widerface_ap_reference(
            {image: scene.detections[image] for image in chosen},
            {image: scene.faces[image] for image in chosen},
            {image: scene.kept[setting][image] for image in chosen},
        )
        assert result[f"AP_{setting}"] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_subset_is_named(official, public_predictions):
    names = official.names[:10]
    result = widerface_ap(public_predictions, official, images=names, subset_name="ten")
    assert result.protocol["images"] == "ten (10 of 3226 images)"
    assert "ten (10 of 3226 images)" in str(result)


def _square(x, y, side=40.0):
    return (x, y, side, side)


def _truth(faces=((100.0, 100.0, 60.0, 60.0),), invalid=()):
    attributes = np.zeros((len(faces), 6), dtype=np.int64)
    attributes[list(invalid), 3] = 1
    boxes = np.reshape(faces, (-1, 4)).astype(float)
    return ground_truth_from_images([WiderFaceImage("0--Event/a.jpg", boxes, attributes)], "test")


def test_ignored_face_absorbs_every_detection_on_it():
    truth = _truth([_square(0, 0, 60), _square(200, 200, 60)], invalid=[1])
    rows = [
        [0, 0, 60, 60, 0.9],
        [200, 200, 60, 60, 1.0],
        [201, 200, 60, 60, 0.95],
        [500, 0, 9, 9, 0.1],
    ]
    result = widerface_ap({"0--Event/a": rows}, truth)
    assert result["AP_easy"] == pytest.approx(1.0)
    assert result.curves["easy"].proposals[-1] == 2


def test_second_detection_on_a_face_is_a_false_positive():
    rows = [[100, 100, 60, 60, 0.9], [101, 100, 60, 60, 0.95], [0, 0, 9, 9, 0.1]]
    curve = widerface_ap({"0--Event/a": rows}, _truth()).curves["easy"]
    assert (curve.proposals[-1], curve.recalled[-1]) == (3, 1)


@pytest.mark.parametrize(("invalid", "proposals"), [([], 3), ([0], 1), ([1], 3)])
def test_detection_equally_near_two_faces_takes_the_first(invalid, proposals):
    truth = _truth([_square(0, 0, 60), _square(0, 0, 60)], invalid=invalid)
    rows = [[0, 0, 60, 60, 0.9], [0, 0, 60, 60, 0.8], [500, 0, 9, 9, 0.1]]
    curve = widerface_ap({"0--Event/a": rows}, truth).curves["easy"]
    assert (curve.proposals[-1], curve.recalled[-1]) == (proposals, int(proposals == 3))


def test_overlap_counts_border_pixels():
    # 9 wide boxes: with the border pixel 10, so one shifted by 5 of 15 overlaps by exactly 1/2.
    truth = _truth([(0.0, 0.0, 14.0, 59.0)])
    rows = [[5, 0, 14, 59, 0.9], [300, 300, 9, 9, 0.1]]
    assert widerface_ap({"0--Event/a": rows}, truth).curves["easy"].recalled[-1] == 1


def test_face_free_image_contributes_false_positives():
    empty = WiderFaceImage("0--Event/b.jpg", np.zeros((0, 4)), np.zeros((0, 6), dtype=np.int64))
    one = WiderFaceImage(
        "0--Event/a.jpg", np.array([[100.0, 100, 60, 60]]), np.zeros((1, 6), dtype=np.int64)
    )
    truth = ground_truth_from_images([one, empty], "test")
    rows = {"0--Event/a": [[100, 100, 60, 60, 0.5]], "0--Event/b": [[100, 100, 60, 60, 0.9]]}
    assert widerface_ap(rows, truth)["AP_easy"] == pytest.approx(0.5)


def test_no_face_that_counts_gives_nan():
    result = widerface_ap(
        {"0--Event/a": [[0, 0, 5, 5, 0.1], [0, 0, 5, 5, 0.2]]}, _truth([(0, 0, 20, 20)])
    )
    assert math.isnan(result["AP_easy"])
    assert result["AP_hard"] == 0.0


def test_missing_image_counts_as_no_detection_and_warns():
    with pytest.warns(UserWarning, match=r"1 of 1 images have no prediction.*0--Event/a"):
        result = widerface_ap({}, _truth())
    assert result["AP_easy"] == 0.0


def test_equal_scores_warn_and_count():
    with pytest.warns(UserWarning, match="all 2 scores equal 0.5"):
        result = widerface_ap(
            {"0--Event/a": [[100, 100, 60, 60, 0.5], [0, 0, 9, 9, 0.5]]}, _truth()
        )
    assert result["AP_easy"] == pytest.approx(0.5)


def _image(name, x=100.0):
    return WiderFaceImage(name, np.array([[x, 100, 60, 60]]), np.zeros((1, 6), dtype=np.int64))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a.gpj.jpg", "a.gpj"),
        ("a.png.jpg", "a.png"),
        ("a.BMP", "a"),
        ("a.webp", "a"),
        ("a 1.5.gif", "a 1.5"),
    ],
)
def test_one_suffix_of_a_name_is_taken_off(name, key):
    truth = ground_truth_from_images([_image(f"0--Event/{name}")], "test")
    assert truth.names == (f"0--Event/{key}",)
    for called in (f"0--Event/{name}", f"0--Event/{key}"):
        rows = {called: [[100, 100, 60, 60, 0.5], [0, 0, 5, 5, 0.1]]}
        assert widerface_ap(rows, truth)["AP_easy"] == pytest.approx(1.0)
        assert truth.subset([called]).names == truth.names


def test_ground_truth_without_an_image_is_an_error():
    with pytest.raises(ValueError, match=r"test: no image to evaluate on"):
        ground_truth_from_images([], "test")


def test_images_that_differ_in_their_suffix_only_are_errors():
    images = [_image("0--Event/a.jpg"), _image("0--Event/a.png", 300.0)]
    with pytest.raises(ValueError, match=r"test: '0--Event/a\.jpg' and '0--Event/a\.png' differ"):
        ground_truth_from_images(images, "test")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [[0, 0, 5, 5, 0.5], [0, 0, 5, 5, math.nan]],
            r"0--Event/a.*row 2: a number that is not finite",
        ),
        ([[0, 0, 5, 5, math.inf]], r"0--Event/a.*row 1: a number that is not finite"),
        ([[0, 0, -5, 5, 0.5]], r"0--Event/a.*row 1: a negative width or height"),
        ([[0, 0, 5, 5]], r"0--Event/a.*expected an array \(N, 5\)"),
    ],
)
def test_unusable_rows_are_errors(rows, message):
    with pytest.raises(ValueError, match=message):
        widerface_ap({"0--Event/a": rows}, _truth())


def test_unknown_images_are_errors():
    with pytest.raises(ValueError, match="0--Event/z"):
        widerface_ap({"0--Event/z": []}, _truth())
    with pytest.raises(ValueError, match="0--Event/z"):
        widerface_ap({}, _truth(), images=["0--Event/z"])
    with pytest.raises(ValueError, match="empty"):
        widerface_ap({}, _truth(), images=[])
    with pytest.raises(ValueError, match="twice"):
        widerface_ap({"0--Event/a": [], "0--Event/a.jpg": []}, _truth())
    with pytest.raises(ValueError, match="subset_name"):
        widerface_ap({"0--Event/a": []}, _truth(), subset_name="x")
    with pytest.raises(ValueError, match="bootstrap is -1; expected 0 or more"):
        widerface_ap({"0--Event/a": []}, _truth(), bootstrap=-1)


def test_missing_ground_truth_says_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"official \.mat files"):
        read_ground_truth(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"wider_face_val.mat, wider_easy_val.mat"):
        read_ground_truth(tmp_path)


def _cells(*values):
    cell = np.empty((len(values), 1), dtype=object)
    cell[:, 0] = values
    return cell


def _write_official(folder, kept=((1, 3), ()), images=("a", "b")):
    """Official files of one event: image a with three faces, face-free image b."""
    folder.mkdir(exist_ok=True)
    boxes = [np.array([[0, 0, 60, 60], [0, 0, 5, 5], [9, 9, 70, 70]]), np.zeros((1, 4))]
    common = {
        "event_list": _cells("0--Event"),
        "file_list": _cells(_cells(*images)),
        "face_bbx_list": _cells(_cells(*boxes)),
    }
    labels = [np.array([[0], [2], [1]], dtype=np.uint8), np.zeros((1, 1), dtype=np.uint8)]
    names = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
    common |= {f"{name}_label_list": _cells(_cells(*labels)) for name in names}
    savemat(folder / "wider_face_val.mat", common)
    lists = [np.reshape(indices, (-1, 1)).astype(np.uint8) for indices in kept]
    for setting in SETTINGS:
        savemat(folder / f"wider_{setting}_val.mat", common | {"gt_list": _cells(_cells(*lists))})


def test_reads_the_form_of_the_official_files(tmp_path):
    _write_official(tmp_path)
    truth = read_ground_truth(tmp_path)
    assert truth.names == ("0--Event/a", "0--Event/b")
    assert truth.kept["hard"].tolist() == [True, False, True, False]
    assert truth.attributes[:, 0].tolist() == [0, 2, 1, 0]
    assert truth.starts.tolist() == [0, 3, 4]


def test_official_files_that_contradict_each_other_are_errors(tmp_path):
    _write_official(tmp_path, kept=((1, 4), ()))
    with pytest.raises(ValueError, match=r"wider_easy_val.mat: 0--Event/a lists a face beyond"):
        read_ground_truth(tmp_path)
    _write_official(tmp_path)
    savemat(tmp_path / "wider_hard_val.mat", {"event_list": _cells("1--Other")})
    with pytest.raises(ValueError, match=r"wider_hard_val.mat: no variable 'gt_list'"):
        read_ground_truth(tmp_path)
    _write_official(tmp_path / "other", images=("a", "c"))
    shutil.copy(tmp_path / "other" / "wider_hard_val.mat", tmp_path)
    with pytest.raises(ValueError, match=r"wider_hard_val.mat: lists other images than wider_face"):
        read_ground_truth(tmp_path)
    savemat(tmp_path / "wider_face_val.mat", {"event_list": _cells("0--Event")})
    with pytest.raises(ValueError, match=r"wider_face_val.mat: no variable '\w+_list' in it"):
        read_ground_truth(tmp_path)


def test_average_precision_of_a_known_curve():
    # Envelope 1.0 up to recall 0.5, 0.5 up to 0.75, nothing beyond.
    assert average_precision([1.0, 0.4, 0.5], [0.5, 0.6, 0.75]) == pytest.approx(0.625)


def test_runs_without_torch_and_detectron2():
    code = (
        "import sys;"
        "import face_d2.evaluation.wider_face.protocol, face_d2.evaluation.fddb.protocol;"
        "from face_d2.evaluation import widerface_ap, fddb_roc;"
        "sys.exit(bool({'torch', 'detectron2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _quietly(*arguments, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="all .* scores equal")
        return widerface_ap(*arguments, **options)
