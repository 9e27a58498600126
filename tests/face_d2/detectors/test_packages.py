"""The detectors of Python packages, with stand-ins that find squares where a package is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from face_d2.analysis.compare.opening import open_detector

#: Of the package facenet-pytorch: finds the red square of an RGB image, twice, the worse first.
FACENET = """
import numpy as np
from torch import nn


class MTCNN(nn.Module):
    def __init__(self, keep_all=False, min_face_size=20, thresholds=(0, 0, 0), device=None):
        super().__init__()
        assert keep_all and str(device) == "cpu" and thresholds == [0.6, 0.7, 0.7]
        self.min_face_size = min_face_size
        self.layer = nn.Linear(3, 4)

    def detect(self, image):
        if min(image.shape[:2]) < self.min_face_size:
            raise ValueError("need at least one array to concatenate")
        rows, columns = np.nonzero(image[:, :, 0] > 200)
        if not len(rows):
            return None, [None]
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return np.array([box, box], np.float32), np.array([0.75, 0.875], np.float32)
"""


class SquareCascade:
    """``cv2.CascadeClassifier``, which OpenCV 5 does not have; finds what is white."""

    def __init__(self, file: str) -> None:
        self.text = Path(file).read_text(errors="replace")

    def empty(self) -> bool:
        return "cascade" not in self.text

    def detectMultiScale3(
        self, gray: NDArray[np.uint8], factor: float, neighbors: int, outputRejectLevels: bool
    ) -> tuple[Any, Any, Any]:
        assert gray.ndim == 2
        assert (factor, neighbors, outputRejectLevels) == (1.1, 3, True)
        number, _, stats, _ = cv2.connectedComponentsWithStats((gray == 255).astype(np.uint8))
        if number == 1:
            return (), (), ()
        boxes = stats[1:, :4].astype(np.int32)
        return boxes, np.zeros(len(boxes), np.int32), np.log(boxes[:, 2].astype(float))


@pytest.fixture
def cascade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(cv2, "CascadeClassifier", SquareCascade, raising=False)
    path = tmp_path / "squares.xml"
    path.write_text("<cascade/>")
    threads = cv2.getNumThreads()
    yield path
    cv2.setNumThreads(threads)


@pytest.fixture
def facenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "facenet_pytorch.py").write_text(FACENET)
    about = tmp_path / "facenet_pytorch-2.6.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: facenet-pytorch\nVersion: 2.6.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = sys.modules.pop("facenet_pytorch", None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    sys.modules.pop("facenet_pytorch", None)
    if own is not None:
        sys.modules["facenet_pytorch"] = own


def squares(*placed: tuple[int, int, int], color: tuple[int, ...]) -> NDArray[np.uint8]:
    """A dark BGR image of 80 x 100 pixels with squares (x, y, side)."""
    image = np.zeros((80, 100, 3), np.uint8)
    for x, y, side in placed:
        image[y : y + side, x : x + side] = color
    return image


class TestHaar:
    def test_corners_and_the_logistic_function_of_the_last_stage(self, cascade: Path) -> None:
        """The gray square is white once the histogram is equalized; the sum is log(side)."""
        image = squares((10, 20, 9), (50, 30, 24), color=(90, 90, 90))
        boxes, scores = open_detector(f"haar:{cascade}", 1).detect(image)
        assert_allclose(boxes, [[50, 30, 74, 54], [10, 20, 19, 29]])
        assert_allclose(scores, [24 / 25, 9 / 10], rtol=1e-6)
        assert cv2.getNumThreads() == 1

    def test_no_square_is_no_face(self, cascade: Path) -> None:
        found = open_detector(f"haar:{cascade}").detect(squares((0, 0, 80), color=(0, 0, 0)))
        assert found.boxes.shape == (0, 4)

    def test_a_file_counts_by_its_content(self, cascade: Path, tmp_path: Path) -> None:
        copy, other = tmp_path / "copy.xml", tmp_path / "other" / cascade.name
        copy.write_bytes(cascade.read_bytes())
        other.parent.mkdir()
        other.write_text("<cascade>another</cascade>")
        first, same, changed = (open_detector(f"haar:{f}") for f in (cascade, copy, other))
        assert first.fingerprint == same.fingerprint != changed.fingerprint
        assert first.protocol["file"] == "squares.xml"
        assert (first.file_bytes, first.parameters) == (len("<cascade/>"), None)

    def test_a_file_that_is_no_cascade_is_named(self, cascade: Path) -> None:
        cascade.write_text("<weights/>")
        with pytest.raises(ValueError, match=r"squares\.xml: is not an OpenCV cascade"):
            open_detector(f"haar:{cascade}")
        cascade.unlink()
        with pytest.raises(FileNotFoundError, match=r"squares\.xml: no such file"):
            open_detector(f"haar:{cascade}")

    def test_it_has_no_option(self, cascade: Path) -> None:
        with pytest.raises(ValueError, match="there is no option score; it has none"):
            open_detector(f"haar:{cascade}?score=0.5")


class TestMTCNN:
    def test_the_package_gets_rgb_and_the_best_box_is_first(self, facenet: None) -> None:
        image = squares((10, 20, 30), color=(0, 0, 255))
        image[:10, :10, 0] = 255  # blue
        boxes, scores = open_detector("mtcnn", 1).detect(image)
        assert_allclose(boxes, [[10, 20, 40, 50]] * 2)
        assert_allclose(scores, [0.875, 0.75])
        assert torch.get_num_threads() == 1

    def test_no_face_and_an_image_without_a_level_are_no_error(self, facenet: None) -> None:
        detector = open_detector("mtcnn?min_face_size=40")
        assert len(detector.detect(np.zeros((80, 80, 3), np.uint8)).scores) == 0
        assert len(detector.detect(np.full((39, 80, 3), 255, np.uint8)).scores) == 0
        assert len(detector.detect(np.full((40, 80, 3), 255, np.uint8)).scores) == 2

    def test_its_protocol_states_version_and_size(self, facenet: None) -> None:
        detector = open_detector("mtcnn?min_face_size=40")
        assert detector.protocol["file"] == "facenet-pytorch 2.6.0"
        assert "faces of 40 px" in detector.protocol["image size"]
        assert detector.protocol["score threshold"] == "stages 0.6, 0.7, 0.7"
        assert (detector.parameters, detector.file_bytes) == (3 * 4 + 4, None)
        assert detector.fingerprint != open_detector("mtcnn").fingerprint

    @pytest.mark.parametrize(
        ("size", "message"),
        [("small", "min_face_size=small is no whole number"), ("0", "is 0; expected at least 1")],
    )
    def test_a_wrong_size_is_named(self, size: str, message: str, facenet: None) -> None:
        with pytest.raises(ValueError, match=message):
            open_detector(f"mtcnn?min_face_size={size}")

    def test_a_missing_package_says_how_to_install_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
        with pytest.raises(ImportError, match="pip install --no-deps facenet-pytorch"):
            open_detector("mtcnn")
