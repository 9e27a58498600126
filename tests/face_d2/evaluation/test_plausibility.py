"""Detections in another form than the protocol's are scored as they are, with a word about it."""

from __future__ import annotations

import unicodedata
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from face_d2.data.wider_face import WiderFaceImage
from face_d2.evaluation.wider_face.files import format_detections, write_predictions
from face_d2.evaluation.wider_face.ground_truth import (
    WiderFaceGroundTruth,
    ground_truth_from_images,
    read_ground_truth,
)
from face_d2.evaluation.wider_face.protocol import WiderFaceResult, widerface_ap

SIDE = 500


@pytest.fixture(scope="module")
def truth() -> WiderFaceGroundTruth:
    random = np.random.default_rng(0)
    images = []
    for number in range(12):
        corners = random.integers(60, SIDE - 60, (5, 2))
        boxes = np.concatenate([corners, random.integers(20, 60, (5, 2))], axis=1)
        attributes = np.zeros((5, 6), np.int64)
        images.append(WiderFaceImage(f"street/{number}.jpg", boxes.astype(float), attributes))
    return ground_truth_from_images(images, "drawn")


def found(truth: WiderFaceGroundTruth) -> dict[str, NDArray[np.float64]]:
    """Every face, found to a pixel."""
    scores = np.random.default_rng(1).uniform(0.5, 1, (len(truth.boxes), 1))
    moved = truth.boxes + np.array([1, -1, 1, 0])
    rows = np.concatenate([moved, scores], axis=1)
    return {name: rows[truth.faces_of(index)] for index, name in enumerate(truth.names)}


def score(
    predictions: dict[str, NDArray[np.float64]] | Path, truth: WiderFaceGroundTruth
) -> tuple[WiderFaceResult, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = widerface_ap(predictions, truth)
    return result, [str(warning.message) for warning in caught]


def test_good_detections_are_scored_without_a_word(truth: WiderFaceGroundTruth) -> None:
    result, said = score(found(truth), truth)
    assert result["AP_hard"] == 1
    assert said == []


def test_bad_detections_are_scored_without_a_word(truth: WiderFaceGroundTruth) -> None:
    random = np.random.default_rng(2)
    rows = {name: random.uniform(10, 200, (9, 5)) for name in truth.names}
    result, said = score(rows, truth)
    assert result["AP_hard"] < 0.1
    assert said == []


def test_normalized_detections_are_named(truth: WiderFaceGroundTruth) -> None:
    rows = {name: r / [SIDE, SIDE, SIDE, SIDE, 1] for name, r in found(truth).items()}
    result, (said,) = score(rows, truth)
    assert result["AP_hard"] == 0
    assert "none of the 60 detections is longer than a pixel" in said
    assert "normalized" in said


def test_corners_are_named(truth: WiderFaceGroundTruth) -> None:
    rows = found(truth)
    for r in rows.values():
        r[:, 2:4] += r[:, :2]
    _, (said,) = score(rows, truth)
    assert "60 would as x1 y1 x2 y2" in said


def test_centers_are_named(truth: WiderFaceGroundTruth) -> None:
    rows = found(truth)
    for r in rows.values():
        r[:, :2] += r[:, 2:4] / 2
    _, (said,) = score(rows, truth)
    assert "60 would as center_x center_y w h" in said


def test_a_flat_folder_goes_by_file_names(truth: WiderFaceGroundTruth, tmp_path: Path) -> None:
    flat = {name.replace("street/", "labels/"): rows for name, rows in found(truth).items()}
    write_predictions(flat, tmp_path / "found")
    result, (said,) = score(tmp_path / "found", truth)
    assert result["AP_hard"] == 1
    assert "matched to images by their file names alone" in said


def test_a_flat_folder_with_another_file_is_refused(truth: WiderFaceGroundTruth) -> None:
    flat = {name.replace("street/", "labels/"): rows for name, rows in found(truth).items()}
    with pytest.raises(ValueError, match=r"'labels/0', which is not .*; it has 'street/0';"):
        widerface_ap({**flat, "labels/other": np.zeros((0, 5))}, truth)


def test_two_flat_folders_with_the_same_files_are_refused(truth: WiderFaceGroundTruth) -> None:
    rows = found(truth)
    twice = {name.replace("street/", f"{folder}/"): rows[name] for name in rows for folder in "ab"}
    with pytest.raises(ValueError, match=r"'a/0', which is not .*; it has 'street/0';"):
        widerface_ap(twice, truth)


def test_archives_of_windows_and_names_of_macos_are_read(
    truth: WiderFaceGroundTruth, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "found.zip", "w") as archive:
        for name, rows in found(truth).items():
            text = "\ufeff" + format_detections(name, rows)
            archive.writestr(f"found/{name}.txt".replace("/", "\\"), text)
    result, said = score(tmp_path / "found.zip", truth)
    assert result["AP_hard"] == 1
    assert said == []
    image = WiderFaceImage("é/é.jpg", np.array([[10.0, 10, 60, 60]]), np.zeros((1, 6), np.int64))
    one = ground_truth_from_images([image], "one")
    row = np.array([[10.0, 10, 60, 60, 0.9]])
    result, _ = score({unicodedata.normalize("NFD", "é/é"): row}, one)
    assert result["AP_hard"] == 1


def test_the_official_lists_are_found_from_any_of_their_places(test_data: Path) -> None:
    folder = test_data / "widerface" / "eval_tools" / "ground_truth"
    expected = read_ground_truth(folder)
    for path in (test_data / "widerface", folder / "wider_face_val.mat"):
        found = read_ground_truth(path)
        assert found.names == expected.names
        np.testing.assert_array_equal(found.boxes, expected.boxes)
