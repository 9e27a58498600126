"""Faces that stay visible are counted as one would count them by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.small_graphs import constant_graph
from helpers.tables import unpadded

from face_d2.analysis.hiding import redact_boxes
from face_d2.cli.evaluate import main
from face_d2.predictor.drawing import redact_faces

#: Image -> annotated faces x y w h.
FACES = {
    "a": [(20, 20, 40, 40), (100, 20, 8, 8)],
    "b": [(50, 50, 100, 60)],
    "c": [],
}
#: Image -> detections x y w h score. With the margin of 15 % those of "a" hide the first face; of
#: "b" they hide 26 of its 60 rows at 0.6 and the rest at 0.3; the one of "c" hides no face.
FOUND = {
    "a": [(22, 22, 36, 36, 0.9)],
    "b": [(50, 50, 100, 20, 0.6), (50, 70, 100, 40, 0.3)],
    "c": [(10, 10, 20, 20, 0.4)],
}
SIZE = (120, 200)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The command's words for three photographs and recorded detections."""
    lines = []
    for name, faces in FACES.items():
        picture = tmp_path / "images" / "0--A" / f"{name}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(picture), np.zeros((*SIZE, 3), np.uint8))
        rows = [f"{x} {y} {w} {h} 0 0 0 0 0 0" for x, y, w, h in faces] or ["0 " * 10]
        lines += [f"0--A/{name}.jpg", str(len(faces)), *rows]
        text = tmp_path / "found" / "0--A" / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        boxes = [" ".join(map(str, row)) for row in FOUND[name]]
        text.write_text("\n".join([name, str(len(boxes)), *boxes]) + "\n")
    (tmp_path / "gt.txt").write_text("\n".join(lines) + "\n")
    data = f"wider:{tmp_path / 'gt.txt'}:{tmp_path / 'images'}"
    return ["hiding", "--data", data, "--cache", str(tmp_path / "runs")]


def measured(words: list[str], folder: Path, *more: str) -> dict[float, dict[str, Any]]:
    path = folder / "hiding.json"
    found = f"Recorded=predictions:{folder / 'found'}"
    assert main([*words, "--detector", found, "--json", str(path), *more]) == 0
    results = json.loads(path.read_text())
    assert results["photographs"] == 3
    assert results["faces"] == 3
    return {point["threshold"]: point for point in results["detectors"]["Recorded"]["thresholds"]}


def test_visible_faces_are_counted_at_every_threshold(words: list[str], tmp_path: Path) -> None:
    points = measured(words, tmp_path)
    assert list(points) == [0.5, 0.2, 0.1, 0.05]
    # At 0.5 the small face of "a" and the one of "b", of which 23 of 60 rows are covered.
    visible = {threshold: point["faces"]["all"]["number"] for threshold, point in points.items()}
    assert visible == {0.5: 2, 0.2: 1, 0.1: 1, 0.05: 1}
    large = points[0.5]["faces"][">= 20 px"]
    assert (large["number"], large["of"], large["share"]) == (1, 2, 0.5)
    assert points[0.5]["faces"]["50-100 px"]["share"] == 1
    assert points[0.2]["faces"]["50-100 px"]["share"] == 0
    assert points[0.2]["faces"]["0-10 px"]["share"] == 1
    assert points[0.2]["faces"]["all"]["untouched"] == pytest.approx(1 / 3)
    assert points[0.2]["faces"]["100-200 px"]["share"] is None
    false = {threshold: point["false_boxes"]["share"] for threshold, point in points.items()}
    assert false == pytest.approx({0.5: 0, 0.2: 1 / 3, 0.1: 1 / 3, 0.05: 1 / 3})
    # Of "c" 26 x 26 pixels are hidden.
    assert points[0.2]["off_faces"] >= 26 * 26 / (SIZE[0] * SIZE[1]) / 3


def test_the_definition_of_visible_can_be_changed(words: list[str], tmp_path: Path) -> None:
    """Of the face of "b" 23 of 60 rows are covered at 0.5."""
    for covered, number in (("0.38", 1), ("0.39", 2)):
        points = measured(words, tmp_path, "--covered", covered, "--threshold", "0.5")
        assert points[0.5]["faces"]["all"]["number"] == number


def test_intervals_are_over_photographs(words: list[str], tmp_path: Path) -> None:
    first, again = (measured(words, tmp_path, "--seed", "3")[0.2] for _ in range(2))
    assert first == again
    low, high = first["faces"]["all"]["interval_95"]
    assert (low, high) == (0, 0.5)  # all photographs "b", or all "a"
    assert first["false_boxes"]["interval_95"] == [0, 1]
    none = measured(words, tmp_path, "--bootstrap", "0")[0.2]
    assert "interval_95" not in none["faces"]["all"]


def test_data_without_a_face_of_20_pixels(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gt.txt").write_text("0--A/a.jpg\n1\n100 20 8 8 0 0 0 0 0 0\n")
    found = tmp_path / "one" / "0--A" / "a.txt"
    found.parent.mkdir(parents=True)
    found.write_text("a\n0\n")
    detector = f"Recorded=predictions:{found.parent.parent}"
    assert main([*words, "--detector", detector, "--threshold", "0.5"]) == 0
    last = unpadded(capsys.readouterr().out).strip().splitlines()[-1]
    assert last.startswith("| Recorded | 0.5 | - | - |")


def test_what_cannot_be_measured_is_said(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = ["--detector", f"Recorded=predictions:{tmp_path / 'found'}"]
    assert main([*words, *detector, *detector]) == 1
    assert "name at least one detector, and no name twice" in capsys.readouterr().err
    names = [f"0--A/{name}.jpg\n0\n{'0 ' * 10}\n" for name in FACES]
    (tmp_path / "gt.txt").write_text("".join(names))
    assert main([*words, *detector]) == 1
    assert "gt: no annotated face" in capsys.readouterr().err


def test_what_is_covered_is_what_blurring_changes() -> None:
    """Against a blurred picture: random boxes, within and beyond the borders."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        corners = generator.uniform(-20, 220, (4, 2))
        boxes = np.hstack([corners, corners + generator.uniform(1, 80, (4, 2))]).astype(np.float32)
        faces = np.hstack(
            [generator.integers(0, (160, 80), (3, 2)), generator.integers(5, 40, (3, 2))]
        )
        scores = np.float32([0.8, 0.2, 0.6, 0.4])
        thresholds = (0.1, 0.7, 0.5)  # in any order
        results = redact_boxes(SIZE, faces.astype(np.float64), boxes, scores, thresholds)
        on_faces = np.zeros(SIZE, bool)
        for x, y, w, h in faces:
            on_faces[y : y + h, x : x + w] = True
        for threshold, result in zip(thresholds, results):
            white = np.full((*SIZE, 3), 255, np.uint8)
            changed = redact_faces(white, boxes[scores > threshold], "box")[..., 0] == 0
            for share, (x, y, w, h) in zip(result.covered, faces):
                assert share == pytest.approx(changed[y : y + h, x : x + w].mean())
            assert result.off_faces == pytest.approx((changed & ~on_faces).mean())


def test_a_threshold_below_the_detectors_own_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    rows = np.zeros((1, 5, 30))
    file = constant_graph(tmp_path / "a.onnx", {"o": rows}, (640, 640))
    detector = f"Mine=yolov8face:{file}"
    assert main([*words, "--detector", detector, "--threshold", "0.01"]) == 1
    assert "Mine reports scores above 0.02 only" in capsys.readouterr().err
    assert main([*words, "--detector", f"{detector}?score=0.005", "--threshold", "0.01"]) == 0
    page = capsys.readouterr().out
    assert page.count("| Mine ") == 3
    file = tmp_path / "pages" / "hiding.md"
    again = ["--detector", f"{detector}?score=0.005", "--threshold", "0.01", "--page", str(file)]
    assert main([*words, *again]) == 0
    assert capsys.readouterr().out == page
    assert file.read_text() in (page, page.removesuffix("\n"))
    for wrong in (["--threshold", "1"], ["--covered", "0"], ["--bootstrap", "-1"]):
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--detector", detector, *wrong])
        assert stopped.value.code == 2
