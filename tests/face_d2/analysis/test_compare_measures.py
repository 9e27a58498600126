"""Figures of the comparison against counts by hand and plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from face_d2.analysis.compare.measures import (
    MeasureSettings,
    calibration,
    differences,
    error_types,
    measure,
    operating_point,
    reach,
)
from face_d2.detectors import Detections
from face_d2.evaluation import widerface_ap
from face_d2.evaluation.wider_face.ground_truth import SETTINGS, WiderFaceGroundTruth


def truth_of(faces, attributes=None, kept=None) -> WiderFaceGroundTruth:
    """Faces XYWH by image; all count unless ``kept`` says otherwise."""
    boxes = np.array([face for rows in faces for face in rows], float).reshape(-1, 4)
    counts = np.ones(len(boxes), bool) if kept is None else np.array(kept)
    return WiderFaceGroundTruth(
        names=tuple(f"0--A/{index}" for index in range(len(faces))),
        boxes=boxes,
        starts=np.cumsum([0, *map(len, faces)]),
        kept={setting: counts for setting in SETTINGS},
        attributes=None if attributes is None else np.array(attributes),
        source="by hand",
        images="all",
    )


def detections(rows_by_image) -> dict[str, Detections]:
    """Rows x, y, w, h, score."""
    found = {}
    for index, rows in enumerate(rows_by_image):
        rows = np.array(rows, np.float32).reshape(-1, 5)
        corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        found[f"0--A/{index}"] = Detections(corners, rows[:, 4])
    return found


def result_of(rows_by_image, truth):
    rows = {f"0--A/{index}": np.reshape(rows, (-1, 5)) for index, rows in enumerate(rows_by_image)}
    return widerface_ap(rows, truth)


FACE = [100, 100, 40, 40]
FOUND = [*FACE, 0.9]
SHIFTED = [112, 112, 40, 40, 0.7]  # IoU 0.33
AWAY = [300, 300, 40, 40, 0.8]


class TestOperatingPoint:
    def test_counts_what_scores_the_threshold_or_more(self):
        truth = truth_of([[FACE], [FACE]])
        result = result_of([[FOUND, AWAY], [[*FACE, 0.4]]], truth)
        point = operating_point(result, "hard", 0.5)
        assert point["precision"] == 0.5
        assert point["recall"] == 0.5
        assert point["false_positives_per_image"] == 0.5

    def test_has_no_precision_where_nothing_is_taken(self):
        result = result_of([[FOUND]], truth_of([[FACE]]))
        assert operating_point(result, "hard", 0.95)["precision"] is None


class TestReach:
    @pytest.fixture
    def result(self):
        truth = truth_of([[FACE]] * 4)
        rows = [[FOUND], [[*FACE, 0.6], AWAY], [[*FACE, 0.3]], []]
        return result_of(rows, truth)

    def test_the_threshold_for_a_recall_is_the_highest_that_finds_enough(self, result):
        assert reach(result, "hard", recall=0.5)["threshold"] == pytest.approx(0.6)
        assert reach(result, "hard", recall=0.75)["threshold"] == pytest.approx(0.3)

    def test_a_recall_out_of_reach_has_no_threshold(self, result):
        assert reach(result, "hard", recall=0.9)["threshold"] is None

    def test_the_threshold_for_false_positives_is_the_lowest_that_keeps_to_them(self, result):
        assert reach(result, "hard", false_positives=0.1)["threshold"] == pytest.approx(0.9)
        assert reach(result, "hard", false_positives=0.25)["threshold"] == pytest.approx(0.3)


class TestErrorTypes:
    def test_false_detections_are_told_apart(self):
        result = result_of([[FOUND, [*FACE, 0.85], SHIFTED, AWAY]], truth_of([[FACE]]))
        errors = error_types(result, "hard", 0.5)
        assert errors["false"] == {"background": 1, "badly placed": 1, "duplicate": 1}
        assert sum(errors["missed"].values()) == 0

    def test_a_detection_on_a_face_that_does_not_count_is_ignored(self):
        truth = truth_of([[FACE, [300, 300, 40, 40]]], kept=[True, False])
        errors = error_types(result_of([[FOUND, AWAY]], truth), "hard", 0.5)
        assert errors["ignored"] == 1
        assert sum(errors["false"].values()) == 0

    def test_a_missed_face_counts_once_by_its_first_reason(self):
        #             blur expression illumination invalid occlusion pose
        attributes = [
            [2, 0, 0, 0, 2, 1],  # small, occluded, blurred
            [2, 0, 0, 0, 1, 0],  # occluded, blurred
            [2, 0, 0, 0, 0, 1],  # blurred, pose
            [0, 0, 1, 0, 0, 1],  # pose, light
            [0, 0, 1, 0, 0, 0],  # light
            [1, 1, 0, 0, 0, 0],  # normal blur is no reason
            [0, 0, 0, 0, 0, 0],  # its box is badly placed
        ]
        faces = [[100 * i, 0, 10 if i == 0 else 40, 10 if i == 0 else 40] for i in range(7)]
        truth = truth_of([faces], attributes)
        errors = error_types(result_of([[[612, 12, 40, 40, 0.9]]], truth), "hard", 0.5)
        assert errors["missed"] == {
            "badly placed": 1,
            "small": 1,
            "occluded": 1,
            "blurred": 1,
            "odd pose": 1,
            "extreme light": 1,
            "other": 1,
        }

    def test_missed_and_found_faces_are_all_faces(self):
        generator = np.random.default_rng(0)
        faces = [generator.uniform(10, 90, (5, 4)).tolist() for _ in range(20)]
        rows = [
            np.column_stack([generator.uniform(10, 90, (8, 4)), generator.random(8)])
            for _ in range(20)
        ]
        result = result_of(rows, truth_of(faces))
        found = operating_point(result, "hard", 0.4)["found"]
        assert found + sum(error_types(result, "hard", 0.4)["missed"].values()) == 100


def test_calibration_compares_scores_with_the_share_that_is_right():
    rows = [[[*FACE, 0.95]], [[*AWAY[:4], 0.95]], [[*FACE, 0.15]]]
    found = calibration(result_of(rows, truth_of([[FACE]] * 3)), "hard")
    assert [bin_["detections"] for bin_ in found["bins"]] == [1, 2]
    assert_allclose([bin_["right"] for bin_ in found["bins"]], [1, 0.5])
    assert found["error"] == pytest.approx((abs(0.15 - 1) + 2 * abs(0.95 - 0.5)) / 3)


def random_scene(seed: int, images: int = 60, quality: float = 0.7):
    generator = np.random.default_rng(seed)
    faces, rows = [], []
    for _ in range(images):
        own = np.column_stack(
            [generator.uniform(0, 500, (4, 2)), generator.uniform(20, 60, (4, 2))]
        )
        seen = own[generator.random(4) < quality]
        wrong = np.column_stack(
            [generator.uniform(0, 500, (2, 2)), generator.uniform(20, 60, (2, 2))]
        )
        boxes = np.concatenate([seen, wrong])
        scores = np.concatenate([generator.beta(4, 2, len(seen)), generator.beta(2, 4, 2)])
        faces.append(own.tolist())
        rows.append(np.column_stack([boxes, scores]))
    return faces, rows


SETTINGS_OF_TEST = MeasureSettings(bootstrap=200)


class TestDifferences:
    def test_of_a_detector_with_itself_is_zero_without_width(self):
        faces, rows = random_scene(0)
        truth = truth_of(faces)
        one = measure(detections(rows), truth, SETTINGS_OF_TEST)
        other = measure(detections(rows), truth, SETTINGS_OF_TEST)
        for row in differences({"a": one, "b": other}):
            assert row["difference"] == 0
            assert row["interval_95"] == [0, 0]

    def test_are_narrower_paired_than_the_two_intervals_apart(self):
        faces, rows = random_scene(1)
        worse = [
            image_rows[:-1] if index % 9 == 0 else image_rows
            for index, image_rows in enumerate(rows)
        ]
        truth = truth_of(faces)
        measured = {
            "a": measure(detections(rows), truth, SETTINGS_OF_TEST),
            "b": measure(detections(worse), truth, SETTINGS_OF_TEST),
        }
        low, high = differences(measured)[-1]["interval_95"]
        alone = measured["a"].metrics["interval_95"]["hard"]
        assert high - low < 0.5 * (alone[1] - alone[0])

    def test_name_first_minus_second(self):
        faces, rows = random_scene(2)
        truth = truth_of(faces)
        none = [image_rows[:1] for image_rows in rows]
        row = differences(
            {
                "all": measure(detections(rows), truth, SETTINGS_OF_TEST),
                "few": measure(detections(none), truth, SETTINGS_OF_TEST),
            }
        )[-1]
        assert (row["first"], row["second"]) == ("all", "few")
        assert row["difference"] > 0
        assert row["interval_95"][0] > 0


def test_the_difference_of_two_equally_good_detectors_holds_zero():
    """Two that miss faces and err by chance, as one network trained from two seeds does."""
    holds = 0
    for seed in range(20):
        generator = np.random.default_rng(100 + seed)
        faces, _ = random_scene(seed, images=100)
        truth = truth_of(faces)
        measured = {}
        for name in "ab":
            rows = []
            for own in map(np.array, faces):
                seen = own[generator.random(4) < 0.7]
                wrong = np.column_stack(
                    [generator.uniform(0, 500, (2, 2)), generator.uniform(20, 60, (2, 2))]
                )
                scores = np.concatenate([generator.beta(4, 2, len(seen)), generator.beta(2, 4, 2)])
                rows.append(np.column_stack([np.concatenate([seen, wrong]), scores]))
            measured[name] = measure(detections(rows), truth, SETTINGS_OF_TEST)
        low, high = differences(measured)[-1]["interval_95"]
        holds += low <= 0 <= high
    # Of 20, a coverage of 95 % gives fewer than 16 with probability 0.003.
    assert holds >= 16


def test_the_aps_are_the_official_ones():
    faces, rows = random_scene(3)
    truth = truth_of(faces)
    float32 = [np.float32(image_rows).astype(float) for image_rows in rows]
    expected = result_of(float32, truth)
    figures = measure(detections(rows), truth, SETTINGS_OF_TEST).metrics
    for key, value in expected.items():
        assert figures[key] == pytest.approx(100 * value, abs=0.02)


def test_the_intervals_hold_what_they_promise():
    """Of 80 samples of a population, about 95 % of the intervals hold the population's AP."""
    faces, rows = random_scene(4, images=1500)
    everything = result_of(rows, truth_of(faces))["AP_hard"]
    generator = np.random.default_rng(5)
    inside = 0
    for _ in range(80):
        drawn = generator.choice(1500, 120, replace=False)
        truth = truth_of([faces[i] for i in drawn])
        figures = measure(detections([rows[i] for i in drawn]), truth, SETTINGS_OF_TEST).metrics
        low, high = figures["interval_95"]["hard"]
        inside += low <= 100 * everything <= high
    # Of 80, a coverage of 95 % gives fewer than 69 with probability 0.0005.
    assert inside >= 69
