"""``FaceDetector``: results, order, batches, broken items, tiles."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from helpers.predictors import REFERENCE_PHOTOS, SquareFinder, draw_squares
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from face_d2 import FaceDetector
from face_d2.data.image_file import UnreadableImageError
from face_d2.ops.resize import SizeRule
from face_d2.predictor.results import FaceResult, RawDetections

SQUARES = [(10, 20, 30), (60, 5, 12), (100, 60, 40)]


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(a: FaceResult, b: FaceResult) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("boxes", "scores", "levels", "height", "width")
    )


def test_a_result_says_what_was_found(squares: tuple[FaceDetector, SquareFinder]) -> None:
    detector, _ = squares
    result = detector.detect(draw_squares((120, 160), SQUARES))
    largest_first = [(100, 60, 140, 100), (10, 20, 40, 50), (60, 5, 72, 17)]
    np.testing.assert_array_equal(result.boxes, np.array(largest_first, np.float32))
    assert result.boxes.dtype == result.scores.dtype == np.float32
    assert result.levels.tolist() == [0, 0, 0]
    assert (result.height, result.width, result.source, result.error) == (120, 160, "", None)
    assert len(result) == 3
    assert [score for _, score in result] == result.scores.tolist()
    assert "3 faces, 120 x 160" in repr(result)
    with pytest.raises(AttributeError):
        result.height = 3  # type: ignore[misc]


def test_every_way_to_give_an_image_is_the_same(
    squares: tuple[FaceDetector, SquareFinder], tmp_path: Path
) -> None:
    detector, _ = squares
    bgr = draw_squares((120, 160), SQUARES)
    path = tmp_path / "squares.png"
    cv2.imwrite(str(path), bgr)
    expected = detector.detect(bgr)
    for image in (path, str(path), path.read_bytes(), Image.open(path)):
        assert same(detector.detect(image), expected)
    assert same(detector.detect(bgr[:, :, ::-1], color_order="RGB"), expected)
    assert detector.detect(path).source == str(path)


def test_a_network_for_rgb_gets_rgb() -> None:
    class RedFinder(SquareFinder):
        def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[RawDetections]:
            seen.extend(image[0, 0].tolist() for image in images)
            return super().detect(images)

    seen: list[list[int]] = []
    image = np.zeros((8, 8, 3), np.uint8)
    image[:] = (1, 2, 3)
    FaceDetector(RedFinder("BGR")).detect(image)
    FaceDetector(RedFinder("RGB")).detect(image)
    assert seen == [[1, 2, 3], [3, 2, 1]]


def test_ties_are_ordered_by_box_and_slivers_go() -> None:
    boxes = np.array([[5, 0, 9, 9], [1, 0, 5, 9], [1, 0, 4, 9], [-9, 0, 0, 5]], np.float32)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        found = RawDetections(boxes[order], np.full(4, 0.5, np.float32), np.array(order))
        result = FaceResult.from_raw(found, (2.0, 1.0), height=10, width=20)
        np.testing.assert_array_equal(result.boxes[:, [0, 2]], [[2, 8], [2, 10], [10, 18]])
        assert result.levels.tolist() == [2, 1, 0]


def test_a_broken_item_is_its_own_error(
    squares: tuple[FaceDetector, SquareFinder], tmp_path: Path
) -> None:
    detector, _ = squares
    good = draw_squares((120, 160), SQUARES)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    results = detector.detect([good, broken, tmp_path / "missing.jpg", good, b"", 3.5, good])
    assert [len(r) for r in results] == [3, 0, 0, 3, 0, 0, 3]
    assert [type(r.error) for r in results] == [
        type(None),
        UnreadableImageError,
        FileNotFoundError,
        type(None),
        UnreadableImageError,
        TypeError,
        type(None),
    ]
    assert results[1].source == str(broken)
    assert "broken.jpg" in str(results[1].error)
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        detector.detect(broken)
    assert detector.detect([]) == []
    with pytest.raises(ValueError, match="color_order"):
        detector.detect([good], color_order="bgr")


def test_a_batch_stays_within_its_limits() -> None:
    backend = SquareFinder()
    detector = FaceDetector(backend, batch_size=3, max_pixels=400_000)
    taken: list[int] = []

    def images() -> Any:
        for index in range(9):
            taken.append(index)
            yield draw_squares((300, 400) if index < 7 else (600, 660), [(10, 10, 20)])

    stream = detector.stream(images())
    next(stream)
    assert len(taken) == 4  # one batch and what showed that it was full
    assert len(list(stream)) == 8
    assert [len(call) for call in backend.calls] == [3, 3, 1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_pixels": 100}, r"max_pixels is \d+; expected at least"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"tile_overlap": 0}, "tile_overlap is 0; expected at least 1"),
        ({"min_size": float("nan")}, "min_size is nan; expected at least 0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceDetector(SquareFinder(), **settings)


def test_a_file_in_place_of_a_backend_is_an_error_with_the_right_call() -> None:
    with pytest.raises(TypeError, match=r"'model\.onnx'.*from_onnx\(FILE\)"):
        FaceDetector("model.onnx")  # type: ignore[arg-type]


def test_a_long_image_is_searched_in_tiles_without_seams() -> None:
    backend = SquareFinder()
    detector = FaceDetector(backend, max_pixels=90_000, tile_overlap=100)
    squares = [(x, 10 + x % 60, 20 + x % 70) for x in range(5, 9_800, 150)]
    result = detector.detect(draw_squares((200, 10_000), squares))
    assert max(h * w for call in backend.calls for h, w, _ in call) <= 90_000
    expected = sorted([x, y, x + side, y + side] for x, y, side in squares)
    assert sorted(result.boxes.astype(int).tolist()) == expected


class EnlargingFinder(SquareFinder):
    """Enlarges images whose shorter side is below 128, as LFFD does, and notes what it works on."""

    def __init__(self) -> None:
        super().__init__(size_rule=SizeRule(min_side=128))
        self.worked_on: list[int] = []

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[RawDetections]:
        for image in images:
            factor = max(128 / min(image.shape[:2]), 1.0)
            self.worked_on.append(math.prod(round(side * factor) for side in image.shape[:2]))
        return super().detect(images)


@pytest.mark.parametrize("max_pixels", [140_000, 150_001, 2**20])
@pytest.mark.parametrize("width", [3, 8, 9, 50, 100, 127, 128, 129, 200, 255, 256])
@pytest.mark.parametrize("upright", [False, True])
def test_no_strip_is_more_for_the_network_than_the_limit(
    max_pixels: int, width: int, upright: bool
) -> None:
    backend = EnlargingFinder()
    detector = FaceDetector(backend, max_pixels=max_pixels, tile_overlap=60)
    length = 40 * width + 4001
    side = width // 2 + 1
    squares = [(x, x % (width - side + 1), side) for x in range(5, length - width, 2 * width)]
    strip = draw_squares((width, length), squares)
    result = detector.detect(strip.transpose(1, 0, 2) if upright else strip)
    assert len(backend.worked_on) > 1
    assert max(backend.worked_on) <= max_pixels
    boxes = result.boxes[:, [1, 0, 3, 2]] if upright else result.boxes
    expected = sorted([x, y, x + side, y + side] for x, y, side in squares)
    assert sorted(boxes.astype(int).tolist()) == expected


def test_a_limit_that_enlarging_alone_passes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_pixels is \d+; expected at least"):
        FaceDetector(EnlargingFinder(), max_pixels=60_000, tile_overlap=60)


def test_a_strip_in_tiles_equals_the_whole(tiny_files: dict[str, tuple[Path, Path]]) -> None:
    whole = FaceDetector.from_config(*tiny_files["lffd"], device="cpu", score_threshold=0.6)
    tiled = FaceDetector(whole.backend, max_pixels=200_000)
    strip = cv2.resize(noise(5, 500), (3200, 32), interpolation=cv2.INTER_CUBIC)
    expected, found = whole.detect(strip), tiled.detect(strip)
    assert len(expected) > 20
    distance = np.abs(expected.boxes[:, None] - found.boxes[None]).max(axis=2).min(axis=1)
    assert (distance < 0.5).mean() > 0.95


def test_small_images_are_found_at_the_configs_size() -> None:
    detector = FaceDetector(SquareFinder(size_rule=SizeRule(min_size=40)))
    image = np.zeros((80, 160, 3), np.uint8)
    image[20:40, 100:120] = (0, 255, 0)
    np.testing.assert_allclose(detector.detect(image).boxes, [[100, 20, 120, 40]], atol=2)


# --- with networks


@given(
    sizes=st.lists(st.tuples(st.integers(8, 90), st.integers(8, 90)), min_size=2, max_size=4),
    data=st.data(),
)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_batch_in_any_order_equals_single_images(
    tiny: FaceDetector, sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    images = [noise(*size, seed) for seed, size in enumerate(sizes)]
    alone = [tiny.detect(image) for image in images]
    order = data.draw(st.permutations(range(len(images))))
    together = tiny.detect([images[i] for i in order])
    assert all(same(result, alone[i]) for i, result in zip(order, together))


def test_equal_sizes_in_one_batch_equal_single_images(tiny: FaceDetector) -> None:
    images = [noise(130, 150, seed) for seed in range(5)]
    alone = [tiny.detect(image) for image in images]
    assert sum(map(len, alone)) > 20
    assert all(same(a, b) for a, b in zip(alone, tiny.detect(images)))


def test_results_are_those_of_detectron2s_own_path(
    tiny_files: dict[str, tuple[Path, Path]],
) -> None:
    """The way DefaultPredictor takes: resize with Pillow, run the model, scale back."""
    detector = FaceDetector.from_config(*tiny_files["df2s2"], device="cpu", score_threshold=0.6)
    image = cv2.resize(noise(13, 21), (210, 130), interpolation=cv2.INTER_CUBIC)
    resized = T.ResizeShortestEdge(96, sys.maxsize).get_transform(image).apply_image(image)
    tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    with torch.no_grad():
        model = detector.backend.model  # type: ignore[attr-defined]
        (output,) = model([{"image": tensor, "height": 130, "width": 210}])
    result = detector.detect(image)
    assert len(result) == len(output["instances"]) > 5
    expected = output["instances"].pred_boxes.tensor.numpy()
    np.testing.assert_allclose(np.sort(result.boxes, axis=0), np.sort(expected, axis=0), atol=0.1)


def test_tiles_equal_the_whole_image(released: FaceDetector, test_data: Path) -> None:
    photo = cv2.imread(str(test_data / "photos" / "lffd_debug_test1.jpg"))
    large = np.tile(photo, (2, 3, 1))
    whole = released.detect(large)
    tiled = FaceDetector(released.backend, max_pixels=500_000, tile_overlap=200).detect(large)
    edges = np.array([480, 960, 1440])
    # Heads that a join of the photographs cuts are no heads.
    cut = (np.abs(whole.boxes[:, None, [0, 2]] - edges[None, :, None]) < 3).any(axis=(1, 2))
    confident = whole.boxes[(whole.scores > 0.5) & ~cut]
    distance = np.abs(confident[:, None] - tiled.boxes[None]).max(axis=2)
    assert len(confident) > 100
    assert distance.min(axis=1).max() < 1
    assert abs(len(tiled) - len(whole)) <= 0.03 * len(whole)


@pytest.mark.parametrize("name", REFERENCE_PHOTOS)
def test_reference_boxes(
    released: FaceDetector,
    test_data: Path,
    assert_reference: Callable[[str, Any, Any], None],
    name: str,
) -> None:
    result = released.detect(test_data / "photos" / name)
    assert_reference(name, result.boxes, result.scores)


def test_reference_boxes_in_a_batch(
    released: FaceDetector, test_data: Path, assert_reference: Callable[[str, Any, Any], None]
) -> None:
    paths = [test_data / "photos" / name for name in REFERENCE_PHOTOS]
    for name, result in zip(REFERENCE_PHOTOS, released.detect(paths)):
        assert_reference(name, result.boxes, result.scores)
    assert released.levels == ("c8", "c11", "c14", "c17")
    assert "PyTorch" in released.runtime


def test_images_too_small_for_a_face_have_none(tiny_files: dict[str, tuple[Path, Path]]) -> None:
    detector = FaceDetector.from_config(*tiny_files["lffd"], device="cpu", score_threshold=0.0)
    assert [len(r) > 0 for r in detector.detect([noise(7, 300), noise(1, 1), noise(8, 8)])] == [
        False,
        False,
        True,
    ]
    strip = noise(4, 30_000)  # enlarged 32 times, it would be too large for one pass
    assert detector.backend.spec.size_rule.searched_pixels(4, 30_000) > detector.max_pixels
    assert len(detector.detect(strip)) == 0


def test_wrong_weights_and_configs_are_named(
    tiny_files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    config, weights = tiny_files["lffd"]
    with pytest.raises(ValueError, match=r"not weights of this config's network; \d+ parameters"):
        FaceDetector.from_config(config, tiny_files["df2s2"][1], device="cpu")
    with pytest.raises(ValueError, match="not weights of this config's network"):
        FaceDetector.from_config("lffd/lffd_17L4S.yaml", weights, device="cpu")
    (tmp_path / "damaged.pth").write_bytes(weights.read_bytes()[:500])
    with pytest.raises((ValueError, RuntimeError)):
        FaceDetector.from_config(config, tmp_path / "damaged.pth", device="cpu")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        FaceDetector.from_config(config, tmp_path / "none.pth", device="cpu")
    with pytest.raises(FileNotFoundError, match="no shipped config"):
        FaceDetector.from_config("lffd/none.yaml", weights, device="cpu")
    with pytest.raises(ValueError, match="'GeneralizedRCNN'; FaceDetector runs"):
        FaceDetector.from_config(
            config, weights, device="cpu", overrides=["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"]
        )
    for overrides, message in [
        (["MODEL.LFFD.NMS_THRES", 0.3], "Non-existent key: MODEL.LFFD.NMS_THRES"),
        (["MODEL.LFFD.NMS_TYPE"], "odd length"),
        (["MODEL.LFFD.NMS_TYPE", 0.3], "Type mismatch"),
    ]:
        with pytest.raises(ValueError, match=rf"{config.name}, \['MODEL.*: .*{message}"):
            FaceDetector.from_config(config, weights, device="cpu", overrides=overrides)
    (tmp_path / "other.yaml").write_text("VERSION: 2\nMODEL:\n  LFDD: {}\n")
    with pytest.raises(ValueError, match=r"other\.yaml: Non-existent config key: MODEL\.LFDD"):
        FaceDetector.from_config(tmp_path / "other.yaml", weights, device="cpu")
    with pytest.raises(ValueError, match=r"score_threshold is .*; expected \[0, 1\)"):
        FaceDetector.from_config(config, weights, device="cpu", score_threshold=1.5)
    with pytest.raises(TypeError, match=r"score_threshold is '0\.5'; expected a number"):
        FaceDetector.from_config(config, weights, device="cpu", score_threshold="0.5")
    with pytest.raises(ValueError, match="device 'cuda:99'"):
        FaceDetector.from_config(config, weights, device="cuda:99")
    with pytest.raises(ValueError, match="device 'abacus' is unknown"):
        FaceDetector.from_config(config, weights, device="abacus")


def test_counters_of_training_may_be_missing(
    tiny_files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    config, weights = tiny_files["df2s2"]
    state = torch.load(weights, weights_only=True)["model"]
    left = {name: value for name, value in state.items() if value.dim()}
    assert len(left) < len(state)
    torch.save({"model": left}, tmp_path / "left.pth")
    image = noise(96, 120)
    expected = FaceDetector.from_config(config, weights, device="cpu").detect(image)
    assert same(
        FaceDetector.from_config(config, tmp_path / "left.pth", device="cpu").detect(image),
        expected,
    )


def test_the_api_is_light() -> None:
    code = (
        "import sys, face_d2; face_d2.FaceDetector; "
        "assert not {'torch', 'detectron2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
