from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg as detectron2_get_cfg
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from face_d2.config import get_cfg
from face_d2.data.augmentation import PhotometricDistortion, SquareFaceCrop
from face_d2.data.mapper import UNREADABLE, FaceDatasetMapper, face_arrays, face_instances


def record(tmp_path: Path, *boxes: tuple[list[float], int]) -> dict[str, Any]:
    path = tmp_path / "picture.png"
    if not path.exists():
        rng = np.random.default_rng(0)
        cv2.imwrite(str(path), rng.integers(0, 256, (80, 120, 3), dtype=np.uint8))
    return {
        "file_name": str(path),
        "height": 80,
        "width": 120,
        "image_id": "picture",
        "annotations": [
            {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": crowd}
            for box, crowd in boxes
        ],
    }


def mapper_cfg(*overrides: object) -> Any:
    cfg = get_cfg()
    cfg.INPUT.FACE_CROP.SIZE = 64
    cfg.merge_from_list(list(overrides))
    return cfg


def test_training_item(tmp_path: Path) -> None:
    np.random.seed(0)
    item = record(tmp_path, ([10, 10, 20, 30], 0), ([50, 40, 10, 10], 1), ([9, 9, 0, 4], 1))
    mapped = FaceDatasetMapper(mapper_cfg(), True)(item)
    assert mapped["image"].shape == (3, 64, 64)
    assert mapped["image"].dtype == torch.uint8
    instances = mapped["instances"]
    assert instances.image_size == (64, 64)
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes", "gt_ignore"}
    assert "annotations" in item  # the loader's own dict is left alone


def test_evaluation_item_is_the_image(tmp_path: Path) -> None:
    item = record(tmp_path, ([10, 10, 20, 30], 0))
    as_is = FaceDatasetMapper(mapper_cfg("INPUT.MIN_SIZE_TEST", 0), False)(item)
    assert np.array_equal(as_is["image"].numpy().transpose(1, 2, 0), cv2.imread(item["file_name"]))
    assert "instances" not in as_is
    resized = FaceDatasetMapper(
        mapper_cfg("INPUT.MIN_SIZE_TEST", 160, "INPUT.MAX_SIZE_TEST", 100000), False
    )(item)
    assert resized["image"].shape == (3, 160, 240)


def test_faces_stay_by_their_center_and_are_clipped() -> None:
    boxes = np.array(
        [
            [-5.0, 10, 15, 30],  # center inside, clipped at the left
            [-20.0, 10, 10, 30],  # center outside
            [40.0, 40, 60, 60],
            [62.0, 10, 66, 30],  # center on the border, which is outside
            [20.0, 20, 20, 30],  # no area
        ]
    )
    ignore = np.array([False, False, True, False, True])
    found = face_instances(boxes, ignore, (64, 64), clip=True)
    assert found.gt_boxes.tensor.tolist() == [[0, 10, 15, 30], [40, 40, 60, 60]]
    assert found.gt_ignore.tolist() == [False, True]
    whole = face_instances(boxes, ignore, (64, 64), clip=False)
    assert whole.gt_boxes.tensor[0].tolist() == [-5, 10, 15, 30]


def test_damaged_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    item = record(tmp_path, ([10, 10, 20, 30], 0))
    data = Path(item["file_name"]).read_bytes()
    Path(item["file_name"]).write_bytes(data[: len(data) // 3])
    mapper = FaceDatasetMapper(mapper_cfg(), True)
    assert mapper(item) is None
    assert mapper(item) is None
    assert caplog.text.count("cannot be decoded") == 1
    stand_in = FaceDatasetMapper(mapper_cfg(), False)(item)
    assert stand_in["image_id"] == "picture"
    assert "picture.png cannot be decoded" in stand_in[UNREADABLE]
    assert not stand_in["image"].any()
    assert stand_in["image"].shape[1:] == (stand_in["height"], stand_in["width"])


def test_crop_squares() -> None:
    """Sides and places over many draws: one in five is the largest square, the rest are uniform."""
    np.random.seed(1)
    image = np.zeros((100, 160, 3), np.uint8)
    crop = SquareFaceCrop(32, 0.3, 1)
    sides, largest = [], 0
    for _ in range(3000):
        cut = crop.get_transform(image, np.empty((0, 4))).transforms[0]
        assert cut.w == cut.h
        assert cut.x0 >= 0
        assert cut.x0 + cut.w <= 160
        assert cut.y0 >= 0
        assert cut.y0 + cut.h <= 100
        largest += cut.w == 100
        sides.append(cut.w)
    assert largest / 3000 == pytest.approx(0.2, abs=0.03)
    smaller = np.array([side for side in sides if side < 100])
    assert smaller.min() >= 30
    histogram = np.histogram(smaller, bins=7, range=(30, 100))[0] / len(smaller)
    assert np.allclose(histogram, 1 / 7, atol=0.03)


def crop_sides(cfg: Any, image: np.ndarray, count: int) -> np.ndarray:
    crop = FaceDatasetMapper(cfg, True).augmentations.augs[0]
    transforms = [crop.get_transform(image, np.empty((0, 4))) for _ in range(count)]
    return np.array([transform.transforms[0].w for transform in transforms])


def test_max_scale_is_the_largest_square_of_a_crop() -> None:
    np.random.seed(5)
    cfg = mapper_cfg("INPUT.FACE_CROP.MIN_SCALE", 0.2, "INPUT.FACE_CROP.MAX_SCALE", 0.5)
    sides = crop_sides(cfg, np.zeros((100, 160, 3), np.uint8), 3000)
    assert sides.max() == 50
    assert np.mean(sides == 50) == pytest.approx(0.2, abs=0.03)
    histogram = np.histogram(sides[sides < 50], bins=3, range=(20, 50))[0]
    assert np.allclose(histogram / histogram.sum(), 1 / 3, atol=0.03)


def test_zoom_draws_the_factor_of_the_resize_log_uniformly() -> None:
    np.random.seed(6)
    cfg = mapper_cfg("INPUT.FACE_CROP.ZOOM", [0.25, 4.0])
    sides = crop_sides(cfg, np.zeros((1000, 1600, 3), np.uint8), 3000)
    assert sides.min() >= 64 / 4
    assert sides.max() <= 64 / 0.25
    histogram = np.histogram(np.log2(64 / sides), bins=4, range=(-2, 2))[0]
    assert np.allclose(histogram / 3000, 1 / 4, atol=0.03)


def test_zoom_takes_no_square_larger_than_the_image_or_smaller_than_a_pixel() -> None:
    image = np.zeros((100, 160, 3), np.uint8)
    assert set(crop_sides(mapper_cfg("INPUT.FACE_CROP.ZOOM", [0.1, 0.5]), image, 9)) == {100}
    assert set(crop_sides(mapper_cfg("INPUT.FACE_CROP.ZOOM", [500.0, 900.0]), image, 9)) == {1}


def test_zoom_draws_the_numbers_of_the_other_rule_before_its_own() -> None:
    """A training that is resumed sees the crops that it would have seen."""
    image = np.zeros((700, 900, 3), np.uint8)
    np.random.seed(7)
    found = crop_sides(mapper_cfg("INPUT.FACE_CROP.ZOOM", [0.4, 2.0]), image, 50)
    np.random.seed(7)
    expected = []
    for _ in range(50):
        if np.random.rand() >= 0.2:
            np.random.uniform(0.3, 1.0)
        factor = np.exp(np.random.uniform(np.log(0.4), np.log(2.0)))
        expected.append(min(max(round(64 / factor), 1), 700))
        np.random.randint(900 - expected[-1] + 1)
        np.random.randint(700 - expected[-1] + 1)
    assert found.tolist() == expected


def test_max_scale_above_1_reaches_beyond_the_image() -> None:
    np.random.seed(8)
    cfg = mapper_cfg("INPUT.FACE_CROP.MAX_SCALE", 2.0)
    sides = crop_sides(cfg, np.zeros((100, 160, 3), np.uint8), 3000)
    assert sides.max() > 190
    assert np.mean(sides == 100) == pytest.approx(0.2, abs=0.03)  # the image's largest square
    assert np.mean(sides[sides != 100] > 100) == pytest.approx(1 / 1.7, abs=0.04)


@pytest.mark.parametrize(("max_scale", "largest"), [(0.5, 50), (1.0, 100), (1.5, 128)])
def test_max_scale_bounds_the_squares_of_zoom(max_scale: float, largest: int) -> None:
    keys = ("INPUT.FACE_CROP.ZOOM", [0.5, 0.5], "INPUT.FACE_CROP.MAX_SCALE", max_scale)
    sides = crop_sides(mapper_cfg(*keys), np.zeros((100, 160, 3), np.uint8), 9)
    assert set(sides) == {largest}


@pytest.mark.parametrize("size", [(30, 200), (200, 30), (40, 40), (100, 61)])
def test_a_crop_beyond_the_image_is_filled_and_its_boxes_agree(size: tuple[int, int]) -> None:
    """Along a side that the crop exceeds it holds all of the image, anywhere; else it is inside."""
    np.random.seed(6)
    height, width = size
    image = np.full((height, width, 3), 200, np.uint8)
    image[10:20, 5:25] = 255
    crop = SquareFaceCrop(60, 1.0, 1, (1.0, 1.0), 2.0, fill=(10.2, 20.0, 29.9))
    starts = set()
    for _ in range(40):
        transform = crop.get_transform(image, np.empty((0, 4)))
        found = transform.apply_image(image)
        assert found.shape == (60, 60, 3)
        whole = transform.apply_box(np.array([[0.0, 0, width, height]]))[0]
        for start, end, length in ((whole[0], whole[2], width), (whole[1], whole[3], height)):
            if length <= 60:
                assert 0 <= start <= end <= 60
            else:
                assert start <= 0 < 60 <= end
        expected = np.full((60, 60, 3), (10, 20, 30), np.uint8)
        for box, value in ((whole, 200), (transform.apply_box(np.array([[5.0, 10, 25, 20]])), 255)):
            x0, y0, x1, y1 = np.clip(box, 0, 60).astype(int).ravel()
            expected[y0:y1, x0:x1] = value
        assert np.array_equal(found, expected)
        starts.add(tuple(whole[:2].tolist()))
    assert len(starts) > 10


def test_the_pixel_mean_is_outside_the_image() -> None:
    cfg = mapper_cfg("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.4])
    assert FaceDatasetMapper(cfg, True).augmentations.augs[0].fill == (1, 2, 3)


def test_faces_that_show_enough_are_ignored() -> None:
    """Their centers are outside; the share is of the area, and a box without area never counts."""
    boxes = np.array(
        [[-30.0, 20, 20, 60], [-12, -12, 10, 10], [-30, 70, 8, 80], [5, 5, 20, 20], [-9, 3, -9, 9]]
    )
    shares = [0.4, 100 / 484, 8 / 38, 1, 0]
    ignore = np.array([False, False, True, False, False])

    def kept(least: float) -> list[tuple[list[float], bool]]:
        found = face_instances(boxes, ignore, (100, 90), clip=True, ignore_visible=least)
        return list(zip(found.gt_boxes.tensor.tolist(), found.gt_ignore.tolist()))

    inside = ([5, 5, 20, 20], False)
    assert kept(1.0) == [inside]
    assert kept(0.3) == [([0, 20, 20, 60], True), inside]
    assert kept(shares[2]) == [([0, 20, 20, 60], True), ([0, 70, 8, 80], True), inside]
    assert len(kept(0.01)) == 4
    cfg = mapper_cfg()
    cfg.INPUT.FACE_CROP.IGNORE_VISIBLE = 0.3
    assert FaceDatasetMapper(cfg, True).ignore_visible == 0.3
    cfg.INPUT.FACE_CROP.IGNORE_VISIBLE = 0.0
    with pytest.raises(ValueError, match=r"IGNORE_VISIBLE is 0\.0"):
        FaceDatasetMapper(cfg, True)


def test_crop_prefers_squares_with_a_face() -> None:
    np.random.seed(2)
    image = np.zeros((100, 400, 3), np.uint8)
    boxes = np.array([[150.0, 40, 170, 60]])

    def hits(attempts: int) -> float:
        crop = SquareFaceCrop(32, 0.3, attempts)
        found = 0
        for _ in range(400):
            moved = crop.get_transform(image, boxes).apply_box(boxes)[0]
            center = (moved[:2] + moved[2:]) / 2
            found += bool((center >= 0).all() and (center < 32).all())
        return found / 400

    assert hits(1) < 0.4
    assert hits(60) > 0.9


def test_crop_and_boxes_agree() -> None:
    """A bright rectangle is where its box says after the crop."""
    np.random.seed(3)
    image = np.zeros((120, 200, 3), np.uint8)
    image[40:80, 90:130] = 255
    boxes = np.array([[90.0, 40, 130, 80]])
    for _ in range(20):
        sample = T.AugInput(image, boxes=boxes)
        T.AugmentationList([SquareFaceCrop(160, 0.6, 50), T.RandomFlip()])(sample)
        ys, xs = np.nonzero(sample.image[..., 0] > 127)
        box = np.clip(sample.boxes[0], 0, 160)
        assert np.allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], box, atol=2)


@pytest.mark.parametrize("size", [20, 64, 150])
def test_crops_have_the_pixels_of_detectron2s_resize(size: int) -> None:
    """Shrunk ones exactly, enlarged ones but for rounding."""
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    np.random.seed(1)
    for _ in range(5):
        crop, resize = SquareFaceCrop(size).get_transform(image, np.empty((0, 4))).transforms
        square = crop.apply_image(image)
        found = resize.apply_image(square).astype(int)
        expected = T.ResizeTransform(*square.shape[:2], size, size).apply_image(square)
        assert np.abs(found - expected).max() <= (len(square) < size)


def test_distortion_changes_colors_within_bounds() -> None:
    np.random.seed(4)
    image = np.random.randint(0, 256, (16, 16, 3), dtype=np.uint8)
    distortion = PhotometricDistortion("BGR")
    results = [distortion.get_transform(image).apply_image(image) for _ in range(60)]
    assert all(r.dtype == np.uint8 and r.shape == image.shape for r in results)
    unchanged = sum(np.array_equal(r, image) for r in results)
    assert 0 < unchanged < 20  # all four coins tails: 1 in 16
    gray = np.full((4, 4, 3), 100, np.uint8)
    levels = [distortion.get_transform(gray).apply_image(gray) for _ in range(300)]
    assert all((level == level[0, 0, 0]).all() for level in levels)  # gray stays gray
    values = {int(level[0, 0, 0]) for level in levels}
    assert min(values) >= (100 - 32) * 0.5 - 1
    assert max(values) <= (100 + 32) * 1.5 + 1
    assert len(values) > 50


def distorted_step_by_step(image: np.ndarray) -> np.ndarray:
    """PhotometricDistortion with an array per step, by the same draws."""

    def coin() -> bool:
        return np.random.rand() < 0.5

    def rounded(values: np.ndarray) -> np.ndarray:
        return np.rint(values).clip(0, 255).astype(np.uint8)

    brightness = np.random.uniform(-32, 32) if coin() else 0.0
    contrast = np.random.uniform(0.5, 1.5) if coin() else 1.0
    saturation = np.random.uniform(0.5, 1.5) if coin() else 1.0
    hue = np.random.uniform(-18, 18) if coin() else 0.0
    contrast_first = coin()
    image = rounded(image + brightness)
    if contrast_first:
        image = rounded(image * contrast)
    if saturation != 1.0 or hue != 0.0:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + round(hue)) % 180
        hsv[..., 1] = rounded(hsv[..., 1] * saturation)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    return image if contrast_first else rounded(image * contrast)


@pytest.mark.parametrize("seed", range(40))
def test_distortion_equals_its_steps(seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.random.seed(seed)
    expected = distorted_step_by_step(image)
    np.random.seed(seed)
    found = PhotometricDistortion("BGR").get_transform(image).apply_image(image)
    assert np.array_equal(found, expected)


def test_a_limit_of_0_is_no_limit() -> None:
    cfg = get_cfg()
    cfg.INPUT.FACE_CROP.ENABLED = False
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (60,), 0
    _, _, size = FaceDatasetMapper(cfg, True).place_faces(np.zeros((0, 4)), np.zeros(0), (30, 90))
    assert size == (60, 180)


def test_a_test_needs_no_keys_of_this_project() -> None:
    assert not FaceDatasetMapper(detectron2_get_cfg(), False).is_train
    with pytest.raises(ValueError, match=r"no INPUT\.FACE_CROP\. Call .*add_face_config"):
        FaceDatasetMapper(detectron2_get_cfg(), True)


def test_annotations_of_several_modes() -> None:
    modes = [BoxMode.XYWH_ABS, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS]
    boxes, ignore = face_arrays(
        [{"bbox": [1, 2, 30.5, 40], "bbox_mode": m, "iscrowd": i} for i, m in enumerate(modes)]
    )
    assert boxes.tolist() == [[1, 2, 31.5, 42], [1, 2, 30.5, 40], [1, 2, 31.5, 42]]
    assert ignore.tolist() == [False, True, True]


@pytest.mark.parametrize(
    "build",
    [
        lambda: SquareFaceCrop(64, 0.0),
        lambda: SquareFaceCrop(0),
        lambda: SquareFaceCrop(64, 0.5, max_scale=0.4),
        lambda: SquareFaceCrop(64, max_scale=float("inf")),
        lambda: SquareFaceCrop(64, zoom=[0.5]),
        lambda: SquareFaceCrop(64, zoom=[0.0, 2.0]),
        lambda: SquareFaceCrop(64, zoom=[2.0, 0.5]),
        lambda: SquareFaceCrop(64, zoom=[0.5, float("inf")]),
        lambda: PhotometricDistortion("YUV"),
    ],
)
def test_impossible_settings(build: Any) -> None:
    with pytest.raises(ValueError, match=r"INPUT\.FACE_CROP|image format"):
        build()
