"""Multi-scale testing of a detector of squares, whose limits are known, and of both networks."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances
from helpers.square_scenes import SquareDetector, assert_each_found_once, boxes_of, draw
from references.box_merging_reference import iou
from torch import nn

from face_d2.config import get_cfg, get_config_file
from face_d2.modeling.base import OneStageDetector
from face_d2.modeling.tta import MultiScaleTTA, SearchScale, search_scales


class SquareModel(OneStageDetector):
    """The detector of squares as a network without weights."""

    def __init__(self, detector: SquareDetector) -> None:
        super().__init__(pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3, input_format="BGR")
        self.detector = detector

    def detect(self, images: ImageList) -> list[Instances]:
        result = []
        for image, size in zip(images.tensor, images.image_sizes):
            rows = torch.as_tensor(self.detector(image.permute(1, 2, 0).numpy()))
            found = Instances(size, pred_boxes=Boxes(rows[:, :4].float()), scores=rows[:, 4])
            found.pred_classes = torch.zeros(len(rows), dtype=torch.int64)
            result.append(found)
        return result


def item(image: np.ndarray, **fields: Any) -> dict[str, Any]:
    return {"image": torch.as_tensor(image.transpose(2, 0, 1).copy()), **fields}


def rows_of(model: nn.Module, image: np.ndarray) -> np.ndarray:
    found = model([item(image)])[0]["instances"]
    assert (found.pred_classes == 0).all()
    return torch.cat([found.pred_boxes.tensor, found.scores[:, None]], dim=1).numpy()


def squares_tta(shortest: float, longest: float, *factors: float, **options: Any) -> MultiScaleTTA:
    scales = options.pop("scales", [SearchScale(factor) for factor in factors])
    model = SquareModel(SquareDetector(shortest, longest)).eval()
    return MultiScaleTTA(model=model, scales=scales, **options)


def average_precision(rows: np.ndarray, squares: list[tuple[int, int, int]]) -> float:
    """Area under the raw precision-recall steps at IoU 0.5; every detection takes one square."""
    left, hits, area = boxes_of(squares).tolist(), 0, 0.0
    for rank, row in enumerate(rows[np.argsort(-rows[:, 4])].tolist(), start=1):
        match = max(left, key=lambda box: iou(row, box), default=None)
        if match is not None and iou(row, match) >= 0.5:
            left.remove(match)
            hits += 1
            area += hits / rank / len(squares)
    return area


SQUARES = [(8, 8, 6), (30, 12, 10), (60, 8, 24), (110, 10, 40), (20, 80, 100), (140, 70, 64)]


@pytest.mark.parametrize("merge", ["nms", "vote"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("case", [SQUARES, SQUARES[:3], SQUARES[3:], [(130, 90, 6)], []])
def test_never_worse_than_the_best_single_scale(case: list, merge: str, flip: bool) -> None:
    """The detector sees sides of 12 to 45; only several scales find sides of 6 to 100."""
    image, factors = draw(200, 220, case), (0.4, 1.0, 2.5)
    several = rows_of(squares_tta(12, 45, *factors, flip=flip, merge=merge), image)
    single = [
        average_precision(rows_of(squares_tta(12, 45, f, flip=False, merge=merge), image), case)
        for f in factors
        if case
    ]
    if case:
        assert average_precision(several, case) >= max(single)
    if case == SQUARES:
        assert max(single) < 0.6
    assert_each_found_once(several, case, 0.8)


def test_ranges_are_sizes_in_the_original_image() -> None:
    """What a scale finds outside its range is not taken from it; both ends are inside."""
    scales = [SearchScale(1.0, face_range=(24, 64)), SearchScale(2.0, face_range=(0, 10))]
    rows = rows_of(squares_tta(2, 1000, scales=scales, flip=False), draw(200, 220, SQUARES))
    assert sorted((rows[:, 2] - rows[:, 0]).round().tolist()) == [6, 10, 24, 40, 64]


@pytest.mark.parametrize(
    ("size", "expected"), [((60, 90), (120, 180)), ((4, 400), (4, 400)), ((1, 4000), (1, 500))]
)
def test_sizes_are_bounded_as_in_testing_at_one(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """Strips are not enlarged: one of 4 x 400 pixels would have become 120 x 12000."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    scale = SearchScale(shorter_side=120, longest_side=sys.maxsize if max(size) < 1000 else 500)
    assert scale.transform(image).apply_image(image).shape[:2] == expected


@pytest.mark.parametrize("size", [(150, 227), (151, 200)])
def test_mirrored_boxes_come_back_to_their_place(size: tuple[int, int]) -> None:
    squares = [(1, 2, 30), (150, 60, 44)]
    rows = rows_of(squares_tta(2, 1000, 1.0, flip=True), draw(*size, squares))
    np.testing.assert_allclose(np.sort(rows[:, :4], axis=0), np.sort(boxes_of(squares), axis=0))


def test_voting_means_and_suppression_picks() -> None:
    """Two answers about one square, 40 and 44 wide, with scores 0.6 and 0.2."""

    class Answers(SquareDetector):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            if image.shape[0] == 100:
                return np.array([[10, 10, 50, 50, 0.6]])
            return np.array([[20, 20, 108, 100, 0.2]])

    for merge, right in (("nms", 50.0), ("vote", (0.6 * 50 + 0.2 * 54) / 0.8)):
        model = SquareModel(Answers()).eval()
        scales = [SearchScale(1.0), SearchScale(2.0)]
        tta = MultiScaleTTA(model=model, scales=scales, flip=False, merge=merge)
        rows = rows_of(tta, np.zeros((100, 120, 3), dtype=np.uint8))
        np.testing.assert_allclose(rows, [[10, 10, right, 50, 0.6]], rtol=1e-6)


def test_best_come_first_and_no_more_than_asked_for() -> None:
    rows = rows_of(squares_tta(2, 1000, 1.0, 2.0, max_detections=4), draw(200, 220, SQUARES))
    assert len(rows) == 4
    assert (np.diff(rows[:, 4]) <= 0).all()


def test_one_size_is_searched_once() -> None:
    """MAX_SIZE makes 300, 400 and 500 the same; an equal size with another range counts."""
    sides = [(300, 0.0), (400, 0.0), (500, 0.0), (500, 9.0)]
    scales = [SearchScale(1.0, side, 240, (least, 1e3)) for side, least in sides]
    tta = squares_tta(2, 1000, scales=scales, flip=False)
    rows_of(tta, draw(200, 220, SQUARES))
    assert tta.model.detector.pixels_seen == [240 * 218] * 2


def test_a_scale_above_the_cap_is_tiled_and_gives_the_same_boxes() -> None:
    squares = [(5, 7, 20), (300, 200, 90), (380, 20, 120), (100, 330, 60), (520, 400, 30)]
    image = draw(460, 600, squares)
    whole = squares_tta(2, 1000, 2.0)
    tiled = squares_tta(2, 1000, 2.0, max_pixels=500_000)
    expected, rows = rows_of(whole, image), rows_of(tiled, image)
    assert_each_found_once(rows, squares, 0.95)
    by_place = [r[np.lexsort(r[:, :4].T)][:, :4] for r in (expected, rows)]
    assert np.abs(by_place[0] - by_place[1]).max() <= 1
    assert max(tiled.model.detector.pixels_seen) <= 500_000 < max(whole.model.detector.pixels_seen)


def test_bad_input_is_named() -> None:
    tta, image = squares_tta(2, 1000, 1.0), np.zeros((40, 50, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"a\.jpg comes as 40 x 50 .* is 80 x 100.*MIN_SIZE_TEST"):
        tta([item(image, height=80, width=100, file_name="a.jpg")])
    with pytest.raises(ValueError, match="training mode"):
        tta.train()([item(image)])


def test_images_in_floating_point_are_those_in_bytes() -> None:
    """Detectron2's predictor hands over floating point."""
    tta, image = squares_tta(2, 1000, 0.5, 1.0), draw(200, 220, SQUARES)
    expected = tta([item(image)])[0]["instances"]
    found = tta([item(image.astype(np.float32), height=200, width=220)])[0]["instances"]
    assert found.pred_boxes.tensor.tolist() == expected.pred_boxes.tensor.tolist()


@pytest.fixture(params=["DF2S2", "LFFD"])
def network(request: pytest.FixtureRequest) -> tuple[CfgNode, nn.Module]:
    """A small detector of each kind, with random weights that find something."""
    file, keys = {
        "DF2S2": (
            "quick/df2s2_synth.yaml",
            ["MODEL.DF2S2.CONV_DIM", 64, "MODEL.FFP.OUT_CHANNELS", 32],
        ),
        "LFFD": (
            "quick/lffd_synth.yaml",
            ["MODEL.LFFD.INIT", "xavier", "MODEL.LFFD.NMS_TYPE", "iou"],
        ),
    }[request.param]
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(file))
    cfg.merge_from_list([*keys, "TEST.DETECTIONS_PER_IMAGE", 100])
    node = cfg.MODEL[request.param]
    node.SCORE_THRESH_TEST = 0.0
    node.TOPK_CANDIDATES_TEST = 300
    torch.manual_seed(0)
    return cfg, build_model(cfg).eval()


def noise(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return T.ResizeTransform(height // 8, width // 8, height, width).apply_image(small)


@pytest.mark.parametrize("merge", ["nms", "vote"])
def test_one_scale_is_the_detectors_own_answer(
    network: tuple[CfgNode, nn.Module], merge: str
) -> None:
    cfg, model = network
    cfg.merge_from_list(["TEST.AUG.FLIP", False, "TEST.AUG.MERGE", merge])
    image = noise(120, 168)
    for side in (0, 160):
        cfg.TEST.AUG.MIN_SIZES = (side,)
        rows = rows_of(MultiScaleTTA(cfg, model), image)
        resized = T.ResizeShortestEdge(side, 4000).get_transform(image).apply_image(image)
        with torch.no_grad():
            own = model([item(resized, height=120, width=168)])[0]["instances"]
        expected = torch.cat([own.pred_boxes.tensor, own.scores[:, None]], dim=1).numpy()
        assert 3 < len(rows) == len(expected)
        for found in (rows, expected):  # equal scores may stand in another order
            found[:] = found[np.lexsort((*found.round(2).T[:4], -found[:, 4].round(6)))]
        np.testing.assert_allclose(rows, expected, atol=1e-3)


def test_scales_and_flips_of_a_network_are_merged(network: tuple[CfgNode, nn.Module]) -> None:
    cfg, model = network
    cfg.TEST.AUG.SCALES = [0.5, 1.0, 1.5]
    tta = MultiScaleTTA(cfg, model)
    image = noise(120, 168)
    rows = rows_of(tta, image)
    assert 3 < len(rows) <= 100
    assert (rows[:, :4] >= 0).all()
    assert (rows[:, [2, 3]] <= (168, 120)).all()
    both = tta([item(noise(96, 80)), item(image)])[1]["instances"]
    np.testing.assert_array_equal(both.pred_boxes.tensor.numpy(), rows[:, :4])


def test_a_mirrored_image_has_the_mirrored_answer(network: tuple[CfgNode, nn.Module]) -> None:
    cfg, model = network
    cfg.TEST.AUG.SCALES = [1.0]
    tta, image = MultiScaleTTA(cfg, model), noise(120, 168)
    rows, mirrored = rows_of(tta, image), rows_of(tta, image[:, ::-1])
    mirrored[:, [0, 2]] = 168 - mirrored[:, [2, 0]]
    assert len(rows) > 3
    for found in (rows, mirrored):
        found[:] = found[np.lexsort((*found.round(2).T[:4], -found[:, 4].round(6)))]
    np.testing.assert_allclose(mirrored, rows, atol=1e-3)


def test_defaults_of_the_config_are_detectron2s_scales() -> None:
    cfg = get_cfg()
    scales = search_scales(cfg)
    assert [scale.shorter_side for scale in scales] == list(range(400, 1201, 100))
    image = np.zeros((300, 2000, 3), dtype=np.uint8)
    assert scales[0].transform(image).apply_image(image).shape == (400, 2667, 3)
    assert scales[8].transform(image).apply_image(image).shape == (600, 4000, 3)
    cfg.TEST.AUG.MAX_SIZE = 0
    assert search_scales(cfg)[8].transform(image).apply_image(image).shape == (1200, 8000, 3)
    cfg.TEST.AUG.MIN_SIZES = (0,)
    assert search_scales(cfg)[0].transform(image).apply_image(image).shape == image.shape
    cfg.TEST.AUG.SCALES = [0.001, 0.5]
    assert search_scales(cfg)[0].transform(image).apply_image(image).shape == (1, 2, 3)
    assert search_scales(cfg)[1].transform(image).apply_image(image).shape == (150, 1000, 3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MERGE", "soft"), r"TEST\.AUG\.MERGE is 'soft'.*'nms', 'vote'"),
        (("MERGE_IOU", 1.5), r"TEST\.AUG\.MERGE_IOU is 1\.5"),
        (("MAX_PIXELS", 1000), r"TEST\.AUG\.MAX_PIXELS is 1000; expected at least 230400"),
        (("MIN_SIZES", ()), "MIN_SIZES and TEST.AUG.SCALES are empty"),
        (("MIN_SIZES", (-5,)), r"MIN_SIZES has -5"),
        (("MIN_SIZES", (0.5,)), r"MIN_SIZES has 0\.5; expected whole pixels"),
        (("MAX_SIZE", -1), "MAX_SIZE is -1"),
        (("SCALES", [1.0, 0]), r"SCALES has 0; expected factors"),
        (("SCALES", ["half"]), r"SCALES has 'half'"),
        (("SCALES", [1, 2], "SIZE_RANGES", [[0, 9]]), r"each of the 2 in TEST\.AUG\.SCALES"),
        (("SCALES", [1], "SIZE_RANGES", [0, 9]), r"one \[min, max\]"),
        (("SCALES", [1], "SIZE_RANGES", [["a", 9]]), r"one \[min, max\]"),
        (("SCALES", [1], "SIZE_RANGES", [[9, 5]]), r"SIZE_RANGES has \[9\.0, 5\.0\]"),
    ],
)
def test_bad_keys_are_named(overrides: tuple, message: str) -> None:
    cfg = get_cfg()
    for key, value in zip(overrides[::2], overrides[1::2]):
        cfg.TEST.AUG[key] = value
    with pytest.raises(ValueError, match=message):
        MultiScaleTTA(cfg, nn.Identity())


def test_no_scales_at_all() -> None:
    with pytest.raises(ValueError, match="at least one scale"):
        MultiScaleTTA(model=nn.Identity(), scales=[])
