"""Scale-balanced sampling: the rule, the geometry of the crops, decoding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from numpy.typing import NDArray
from PIL import Image

from face_d2.config import get_cfg
from face_d2.data.image_file import read_shrunk
from lffd_d2.color_distortion import distort_colors
from lffd_d2.scale_sampling import RangeSampler, ScaleSamplingMapper

RANGES_8 = [(10, 15), (15, 20), (20, 40), (40, 70), (70, 110), (110, 250), (250, 400), (400, 560)]
STRIDES_8 = [4, 4, 8, 8, 16, 32, 32, 32]
RANGES_5 = [(10, 20), (20, 40), (40, 80), (80, 160), (160, 320)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    np.random.seed(0)


def expected_shares(count: int, limit: int | None, beyond: float) -> NDArray[np.float64]:
    """Share of every range, the choice beyond the last counted with the last."""
    if limit is not None:
        return np.array([1 / limit] * limit + [0.0] * (count - limit))
    shares = np.full(count, (1 - beyond) / count + beyond / (count + 1))
    shares[-1] += beyond / (count + 1)
    return shares


@pytest.mark.parametrize(
    ("ranges", "rules", "beyond", "size", "limit"),
    [
        (RANGES_8, 3, 0.1, 6, 1),
        (RANGES_8, 3, 0.1, 10, 1),
        (RANGES_8, 3, 0.1, 10.5, 2),
        (RANGES_8, 3, 0.1, 15, 2),
        (RANGES_8, 3, 0.1, 20, 3),
        (RANGES_8, 3, 0.1, 20.5, None),
        (RANGES_8, 3, 0.1, 300, None),
        (RANGES_5, 2, 0.1, 10, 1),
        (RANGES_5, 2, 0.1, 20, 2),
        (RANGES_5, 2, 0.1, 21, None),
        (RANGES_5, 2, 0.5, 90, None),
        (RANGES_5, 0, 0.0, 3, None),
    ],
)
def test_ranges_are_drawn_by_the_rule(
    ranges: list, rules: int, beyond: float, size: float, limit: int | None
) -> None:
    draws = 2000
    sampler = RangeSampler(ranges, rules, beyond)
    drawn = [sampler(size) for _ in range(draws)]
    counts = np.bincount([index for index, _ in drawn], minlength=len(ranges))
    shares = expected_shares(len(ranges), limit, beyond)
    assert not counts[shares == 0].any()
    sigma = np.sqrt(draws * shares * (1 - shares))
    assert (np.abs(counts - draws * shares) <= 5 * sigma).all()
    for index, target in drawn:
        low, high = ranges[index]
        assert low <= target <= (high * 1.5 if index == len(ranges) - 1 else high)


def test_sizes_are_uniform_integers_up_to_both_ends() -> None:
    sampler = RangeSampler([(10, 13)], 0, 0.0)
    counts = np.bincount([sampler(50)[1] for _ in range(2000)], minlength=14)[10:]
    assert counts.sum() == 2000
    assert (np.abs(counts - 500) <= 5 * np.sqrt(500 * 0.75)).all()


def test_beyond_the_last_range_goes_to_half_as_much_again() -> None:
    sampler = RangeSampler([(10, 20)], 0, 1.0)
    drawn = {sampler(50) for _ in range(2000)}
    assert {index for index, _ in drawn} == {0}
    assert {target for _, target in drawn} == set(range(10, 31))


def sizes_by_the_rule(size: float, limit: float) -> dict[int, set[int]]:
    """By range, the sizes of RANGES_5 that a face may be drawn at; beyond the last counts to it."""
    allowed: dict[int, set[int]] = {}
    for index, (low, high) in enumerate([*RANGES_5, (320, 480)]):
        for target in range(low, high + 1):
            if target <= limit * size or (index == 0 and target == low):
                allowed.setdefault(min(index, 4), set()).add(target)
    return allowed


@pytest.mark.parametrize("size", [2, 6, 7, 9.9, 13, 14, 40, 75, 107, 120, 161, 400])
def test_no_face_is_enlarged_by_more_than_the_limit(size: float) -> None:
    sampler = RangeSampler(RANGES_5, 0, 1.0, max_enlarge=3)
    expected = sizes_by_the_rule(size, 3)
    drawn: dict[int, list[int]] = {}
    for _ in range(4000):
        index, target = sampler(size)
        drawn.setdefault(index, []).append(target)
    assert set(drawn) == set(expected)
    for index, targets in drawn.items():
        assert set(targets) <= expected[index]
        assert min(targets) <= min(expected[index]) + 8
        assert max(targets) >= max(expected[index]) - 8
    choices = len(expected) + (3 * size >= 320)  # beyond the last is a choice of its own
    for index in range(len(expected)):
        share = (2 if index == 4 and choices == 6 else 1) / choices
        spread = 5 * np.sqrt(4000 * share * (1 - share))
        assert abs(len(drawn[index]) - 4000 * share) <= spread


def test_the_rules_for_small_faces_hold_under_a_limit() -> None:
    sampler = RangeSampler(RANGES_5, 2, 0.0, max_enlarge=100)
    assert {sampler(9)[0] for _ in range(500)} == {0}
    assert {sampler(15)[0] for _ in range(500)} == {0, 1}


def test_without_a_limit_the_draws_are_as_released() -> None:
    """The same random numbers give the same sizes, so that old runs can be repeated."""

    def released(size: float) -> tuple[int, int]:
        choices = 5 + int(np.random.rand() < 0.3)
        if size <= 10:
            choices = 1
        elif size <= 20:
            choices = 2
        drawn = np.random.randint(choices)
        if drawn == 5:
            return 4, 320 + np.random.randint(161)
        low, high = RANGES_5[drawn]
        return drawn, low + np.random.randint(high - low + 1)

    sizes = np.random.uniform(4, 400, 500)
    sampler = RangeSampler(RANGES_5, 2, 0.3)
    np.random.seed(1)
    got = [sampler(size) for size in sizes]
    np.random.seed(1)
    assert got == [released(size) for size in sizes]


def make_mapper(**changes: Any) -> ScaleSamplingMapper:
    settings: dict[str, Any] = {
        "sampler": RangeSampler(RANGES_8, 3, 0.1),
        "strides": STRIDES_8,
        "size": 640,
        "negative_ratio": 0.0,
        "negative_scales": (0.5, 3.5),
        "flip": "none",
        "color_distortion": False,
        "image_format": "BGR",
    }
    return ScaleSamplingMapper(**{**settings, **changes})


Record = Callable[..., dict[str, Any]]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """A function writing an image and giving its dataset dict; faces are (x, y, w, h[, crowd])."""

    def write(pixels: NDArray[np.uint8], *faces: tuple, name: str = "x.png") -> dict[str, Any]:
        path = tmp_path / name
        cv2.imwrite(str(path), pixels)
        annotations = [
            {
                "bbox": [float(v) for v in face[:4]],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 0,
                "iscrowd": int(len(face) > 4),
            }
            for face in faces
        ]
        height, width = pixels.shape[:2]
        return {
            "file_name": str(path),
            "height": height,
            "width": width,
            "image_id": "x",
            "annotations": annotations,
        }

    return write


def gray_with_patches(height: int, width: int, *faces: tuple) -> NDArray[np.uint8]:
    """A gray image on which every face is a white rectangle."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    for x, y, w, h, *_ in faces:
        pixels[y : y + h, x : x + w] = 255
    return pixels


def test_the_chosen_face_lands_in_the_drawn_range_of_2000_crops(record: Record) -> None:
    """The histogram of branches over crops, not only over draws of the sampler."""
    face = (30, 40, 50, 64)
    item = record(gray_with_patches(200, 260, face), face)
    mapper = make_mapper(size=32)
    counts = np.zeros(len(RANGES_8))
    for _ in range(2000):
        box = mapper(item)["instances"].gt_boxes.tensor[0]
        side = (box[2:] - box[:2]).max().item()
        inside = [low - 1e-3 <= side < high - 1e-3 for low, high in RANGES_8]
        counts[inside.index(True) if any(inside) else -1] += 1
    # A side on a shared border (15, 20, ...) belongs to two ranges and is counted with the upper:
    # of the integers of a range, the last one moves up.
    shares = expected_shares(8, None, 0.1)
    widths = np.array([high - low + 1 for low, high in RANGES_8])
    moved = np.append(shares[:-1] / widths[:-1], 0.0)
    shares = shares - moved + np.append(0.0, moved[:-1])
    sigma = np.sqrt(2000 * shares * (1 - shares))
    assert (np.abs(counts - 2000 * shares) <= 5 * sigma).all()


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_boxes_lie_on_what_they_bound(record: Record, flip: str, name: str) -> None:
    faces = [(60, 48, 48, 56), (160, 96, 40, 48)]
    item = record(gray_with_patches(240, 320, *faces), *faces, name=name)
    mapper = make_mapper(flip=flip)
    checked = 0
    for _ in range(60):
        sample = mapper(item)
        image = sample["image"][0].numpy().astype(int)
        assert image.shape == (640, 640)
        for x1, y1, x2, y2 in sample["instances"].gt_boxes.tensor.tolist():
            if min(x2 - x1, y2 - y1) < 12 or min(x1, y1) < 2 or max(x2, y2) > 638:
                continue
            checked += 1
            # Half-way between white and gray lies the edge; a pixel i is centered at i + 0.5.
            middle_row, middle_column = image[int((y1 + y2) / 2)], image[:, int((x1 + x2) / 2)]
            for line, first, last in ((middle_row, x1, x2), (middle_column, y1, y2)):
                start, end = int((first + last) / 2), int((first + last) / 2)
                while start > 0 and line[start - 1] > 172:
                    start -= 1
                while end < 639 and line[end + 1] > 172:
                    end += 1
                assert abs(start - first) <= 1.0
                assert abs(end + 1 - last) <= 1.0
    assert checked > 30


def test_the_face_is_centered_up_to_half_a_stride(record: Record) -> None:
    face = (101, 77, 40, 50)
    item = record(gray_with_patches(240, 320, face), face)
    mapper = make_mapper(sampler=RangeSampler([(70, 110)], 0, 0.0), strides=[16])
    offsets = []
    for _ in range(400):
        box = mapper(item)["instances"].gt_boxes.tensor[0]
        offsets.append(((box[:2] + box[2:]) / 2 - 320).tolist())
    offsets = np.array(offsets)
    np.testing.assert_allclose(offsets, offsets.round(), atol=1e-3)
    for axis in (0, 1):
        assert set(offsets[:, axis].round().astype(int)) == set(range(-8, 9))


def test_the_rest_of_a_crop_is_black(record: Record) -> None:
    face = (40, 40, 100, 100)
    item = record(np.full((200, 200, 3), 200, np.uint8), face)
    mapper = make_mapper(sampler=RangeSampler([(50, 51)], 0, 0.0), strides=[2])
    image = mapper(item)["image"][0]
    shown = image > 0
    assert 95 <= shown.any(0).sum() <= 105  # 200 x 0.5
    assert (image[:200] == 0).all()
    assert (image[shown] > 190).float().mean() > 0.95


def test_faces_are_not_cut_and_those_out_of_sight_are_dropped(record: Record) -> None:
    faces = [(100, 100, 60, 60), (170, 100, 60, 60), (900, 100, 60, 60)]
    item = record(gray_with_patches(300, 1000, *faces), *faces)
    mapper = make_mapper(sampler=RangeSampler([(60, 61)], 0, 0.0), strides=[1], size=128)
    numbers = set()
    for _ in range(40):
        boxes = mapper(item)["instances"].gt_boxes.tensor
        numbers.add(len(boxes))
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (sides > 59).all()
    assert numbers == {1, 2}


def test_ignored_faces_are_never_chosen_and_stay_marked(record: Record) -> None:
    faces = [(100, 100, 40, 40), (150, 100, 90, 90, "crowd")]
    item = record(gray_with_patches(300, 400, *faces), *faces)
    mapper = make_mapper(sampler=RangeSampler([(40, 41)], 0, 0.0), strides=[1], size=256)
    for _ in range(20):
        instances = mapper(item)["instances"]
        assert instances.gt_ignore.tolist() == [False, True]
        box = instances.gt_boxes.tensor[0]
        torch.testing.assert_close((box[:2] + box[2:]) / 2, torch.full((2,), 128.0))


def test_crops_without_faces_come_from_beside_them(record: Record) -> None:
    face = (20, 50, 60, 70)
    item = record(gray_with_patches(200, 400, face), face)  # 320 pixels of room on the right
    mapper = make_mapper(negative_ratio=1.0)
    for _ in range(50):
        sample = mapper(item)
        assert len(sample["instances"]) == 0
        assert sample["image"].max() <= 91
        assert sample["image"].max() >= 89


def test_the_share_of_crops_without_faces(record: Record) -> None:
    face = (20, 50, 60, 70)
    roomy = record(gray_with_patches(200, 400, face), face, name="a.png")
    tight = record(gray_with_patches(150, 160, face), face, name="b.png")
    mapper = make_mapper(negative_ratio=0.1, size=32)
    without = sum(len(mapper(roomy)["instances"]) == 0 for _ in range(1000))
    assert abs(without - 100) <= 5 * np.sqrt(90)
    assert all(len(mapper(tight)["instances"]) == 1 for _ in range(200))  # no room: none


def test_images_without_a_usable_face_give_background(record: Record) -> None:
    empty = record(gray_with_patches(120, 160), name="a.png")
    for _ in range(10):
        assert len(make_mapper()(empty)["instances"]) == 0
    crowd = (10, 10, 140, 100, "crowd")
    ignored = record(gray_with_patches(120, 160, crowd), crowd, name="b.png")
    for _ in range(10):
        assert make_mapper()(ignored)["instances"].gt_ignore.tolist() == [True]


@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_jpegs_are_decoded_no_larger_than_needed(tmp_path: Path, shrink: int) -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.uniform(0, 255, (403, 517, 3)), (0, 0), 30)
    pixels = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    path = str(tmp_path / "x.jpg")
    cv2.imwrite(path, pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])
    image, divisor = read_shrunk(path, 1 / shrink)
    assert divisor == shrink
    assert image.shape == (-(-403 // shrink), -(-517 // shrink), 3)
    assert read_shrunk(path, 1.01 / shrink)[1] == max(shrink // 2, 1)
    # Pixel i of the small image is the mean of `shrink` pixels of the large one.
    inner = pixels[: 403 // shrink * shrink, : 517 // shrink * shrink].astype(float)
    means = inner.reshape(403 // shrink, shrink, 517 // shrink, shrink, 3).mean(axis=(1, 3))
    assert np.abs(image[: means.shape[0], : means.shape[1]] - means).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, scale: float) -> None:
    from detectron2.data.detection_utils import read_image

    pixels = np.zeros((80, 120, 3), np.uint8)
    pixels[:40, :60] = (200, 30, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / "x.jpg")
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    expected = read_image(path, "BGR").astype(int)
    image, divisor = read_shrunk(path, scale)
    assert divisor == (1 if scale == 1 else 2)
    expected = expected[divisor // 2 :: divisor, divisor // 2 :: divisor]
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 6


def test_a_photograph_turned_by_exif_gives_matching_boxes(record: Record) -> None:
    face = (40, 100, 60, 80)
    item = record(gray_with_patches(300, 200, face), face, name="x.jpg")
    upright = cv2.imread(item["file_name"])
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    lying.save(item["file_name"], exif=exif, quality=95)
    mapper = make_mapper(sampler=RangeSampler([(30, 31)], 0, 0.0), strides=[1], size=64)
    sample = mapper(item)
    x1, y1, x2, y2 = sample["instances"].gt_boxes.tensor[0].round().int().tolist()
    assert sample["image"][0, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].min() > 200
    assert sample["image"][0, y1 + 2 : y2 - 2, x2 + 3 : x2 + 8].max() < 130


def test_a_damaged_image_is_reported_once_and_left_out(
    tmp_path: Path, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    face = (20, 20, 40, 40)
    item = record(gray_with_patches(100, 100, face), face, name="x.jpg")
    mapper = make_mapper()
    for content in (b"", b"\xff\xd8 nonsense", b"text"):
        Path(item["file_name"]).write_bytes(content)
        assert mapper(item) is None
    Path(item["file_name"]).unlink()
    assert mapper(item) is None
    assert len(caplog.records) == 1
    assert "x.jpg cannot be decoded" in caplog.text


def test_an_image_of_another_size_is_an_error(record: Record) -> None:
    face = (20, 20, 40, 40)
    item = record(gray_with_patches(100, 120, face), face)
    item["width"] = 121
    with pytest.raises(ValueError, match=r"100 x 120 pixels .* says 100 x 121"):
        make_mapper()(item)
    del item["width"]
    with pytest.raises(ValueError, match=r"x\.png has no height and width"):
        make_mapper()(item)


def test_the_dataset_dict_is_left_alone(record: Record) -> None:
    face = (20, 20, 40, 40)
    item = record(gray_with_patches(100, 120, face), face)
    before = repr(item)
    sample = make_mapper()(item)
    assert repr(item) == before
    assert sample["image_id"] == "x"
    assert sample["image"].dtype == torch.uint8


def test_rgb_is_bgr_turned_round(record: Record) -> None:
    pixels = np.zeros((60, 60, 3), np.uint8)
    pixels[:] = (250, 120, 10)  # blue, green, red
    item = record(pixels, (10, 10, 40, 40))
    sampler = RangeSampler([(40, 41)], 0, 0.0)
    for image_format, expected in (("BGR", [250, 120, 10]), ("RGB", [10, 120, 250])):
        mapper = make_mapper(sampler=sampler, strides=[1], size=32, image_format=image_format)
        assert mapper(item)["image"][:, 16, 16].tolist() == expected


def test_color_distortion_keeps_form_and_happens_half_the_time() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    changed = 0
    for _ in range(1000):
        distorted = distort_colors(image)
        assert distorted.dtype == np.uint8
        assert distorted.shape == image.shape
        changed += not np.array_equal(distorted, image)
    share = 0.5 * (1 - 0.5**3)
    assert abs(changed - 1000 * share) <= 5 * np.sqrt(1000 * share * (1 - share))


def test_color_distortion_scales_and_blends(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = (200, 100, 50)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(float)
    expected = {
        "brightness": image * 1.5,
        "saturation": image * 1.5 - gray[..., None] * 0.5,
        "contrast": image * 1.5 - round(gray.mean()) * 0.5,
    }
    for kind, wanted in expected.items():
        monkeypatch.setattr(np.random, "rand", lambda: 0.9)
        monkeypatch.setattr(np.random, "permutation", lambda _, kind=kind: [kind])
        monkeypatch.setattr(np.random, "uniform", lambda *_: 1.5)
        np.testing.assert_allclose(distort_colors(image), np.clip(wanted, 0, 255), atol=0.51)


def test_the_limit_of_a_config_holds_in_its_crops(record: Record) -> None:
    cfg = get_cfg()
    cfg.INPUT.SCALE_SAMPLING.SIZE = 96
    cfg.INPUT.SCALE_SAMPLING.NEGATIVE_RATIO = 0.0
    cfg.INPUT.SCALE_SAMPLING.MAX_ENLARGE = 2.0
    mapper = ScaleSamplingMapper(cfg, True)
    item = record(gray_with_patches(100, 120, (20, 20, 40, 40)), (20, 20, 40, 40))
    for _ in range(50):
        box = mapper(item)["instances"].gt_boxes.tensor[0]
        assert (box[2:] - box[:2]).max() <= 80 + 1e-3


def test_built_from_a_config(record: Record) -> None:
    cfg = get_cfg()
    cfg.INPUT.SCALE_SAMPLING.SIZE = 96
    mapper = ScaleSamplingMapper(cfg, True)
    face = (20, 20, 40, 40)
    sample = mapper(record(gray_with_patches(100, 120, face), face))
    assert sample["image"].shape == (3, 96, 96)
    with pytest.raises(ValueError, match="builds training crops"):
        ScaleSamplingMapper(cfg, False)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SCALE_SAMPLING.SMALL_FACE_RULES", 9, "SMALL_FACE_RULES"),
        ("SCALE_SAMPLING.BEYOND_LAST_PROB", 1.1, "BEYOND_LAST_PROB"),
        ("SCALE_SAMPLING.MAX_ENLARGE", -1.0, "MAX_ENLARGE is -1.0"),
        ("SCALE_SAMPLING.MAX_ENLARGE", 0.5, "at least 1, or 0"),
        ("SCALE_SAMPLING.MAX_ENLARGE", float("nan"), "MAX_ENLARGE is nan"),
        ("SCALE_SAMPLING.SIZE", 0, "SIZE"),
        ("SCALE_SAMPLING.NEGATIVE_RATIO", -0.1, "NEGATIVE_RATIO"),
        ("SCALE_SAMPLING.NEGATIVE_SCALES", [2.0, 1.0], "NEGATIVE_SCALES"),
        ("RANDOM_FLIP", "diagonal", "RANDOM_FLIP"),
        ("FORMAT", "L", "INPUT.FORMAT"),
    ],
)
def test_a_wrong_key_is_named(key: str, value: Any, message: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list([f"INPUT.{key}", value])
    with pytest.raises(ValueError, match=message):
        ScaleSamplingMapper(cfg, True)


@pytest.mark.parametrize("face_ranges", [[[20, 10]], []])
def test_impossible_ranges_are_refused(face_ranges: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="face_ranges"):
        RangeSampler(face_ranges, 0, 0.1)


def test_every_range_needs_a_stride() -> None:
    with pytest.raises(ValueError, match="strides has 2 values, face_ranges 8"):
        make_mapper(strides=[4, 8])


def test_ranges_and_strides_are_those_of_the_network() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.LFFD.VARIANT", "17L4S", "INPUT.SCALE_SAMPLING.SMALL_FACE_RULES", 2])
    mapper = ScaleSamplingMapper(cfg, True)
    assert mapper.sampler.face_ranges == [(10, 20), (20, 40), (40, 80), (80, 160)]
    assert mapper.strides == [4, 8, 16, 32]
