"""Which faces receptive fields cover: by hand and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.config import CfgNode
from references import coverage_reference

from face_d2.modeling.coverage_rule import build_coverage_rule
from lffd_d2.coverage import ReceptiveFieldCoverage

SIZE = (80, 101)


@pytest.fixture
def rule(tiny_cfg: CfgNode) -> ReceptiveFieldCoverage:
    """Centers 3, 7, 11 ... for faces of 10 to 20 pixels, and 7, 15, 23 ... for 20 to 40."""
    return build_coverage_rule(tiny_cfg, training=False)


@pytest.mark.parametrize(
    ("faces", "outcomes", "positives"),
    [
        ([(10, 10, 22, 22)], [0], [[9, 0]]),  # centers 11, 15, 19 either way
        ([(10, 10, 30, 30)], [0], [[25, 4]]),  # size 20 is in both ranges: 11 ... 27; 15, 23
        ([(10, 10, 40, 40)], [0], [[0, 16]]),  # 15, 23, 31, 39
        ([(10, 10, 19, 19)], [1], [[0, 0]]),  # gray: 9 pixels
        ([(10, 10, 70, 70)], [1], [[0, 0]]),
        ([(10, 16, 40, 22)], [2], [[0, 0]]),  # between the rows 15 and 23
        ([(10, 10, 22, 22)] * 2, [2, 2], [[0, 0]] * 2),  # every center in both
        # The second face leaves the first its left column (11) and has 23, 27 to itself.
        ([(10, 10, 22, 22), (14, 10, 28, 22)], [0, 0], [[3, 0], [6, 0]]),
    ],
)
def test_by_hand(
    rule: ReceptiveFieldCoverage, faces: list, outcomes: list[int], positives: list
) -> None:
    found = rule(np.array(faces, dtype=float), np.zeros(len(faces), dtype=bool), SIZE)
    assert found.outcomes.tolist() == outcomes
    assert found.positives.tolist() == positives


def test_an_ignored_face_stands_in_the_way(rule: ReceptiveFieldCoverage) -> None:
    faces = np.array([(10.0, 10, 22, 22), (0, 0, 60, 60)])
    found = rule(faces, np.array([False, True]), SIZE)
    assert found.outcomes[0] == 2
    assert not found.positives.any()


def test_equals_plain_loops(rule: ReceptiveFieldCoverage) -> None:
    generator = np.random.default_rng(4)
    variant = rule._model.backbone.variant
    covered = 0
    for _ in range(12):
        corner = generator.integers(-6, 90, (9, 2)).astype(float)
        faces = np.concatenate([corner, corner + generator.integers(2, 50, (9, 2))], axis=1)
        ignore = generator.random(9) < 0.1
        found = rule(faces, ignore, SIZE)
        outcomes, positives = coverage_reference.field_coverage(
            variant.branches,
            variant.map_sizes(*SIZE),
            faces.tolist(),
            ignore.tolist(),
            scale_measure="longer",
            min_face=8,
        )
        assert found.positives.tolist() == positives
        assert found.outcomes[~ignore].tolist() == np.array(outcomes)[~ignore].tolist()
        covered += int((found.outcomes == 0).sum())
    assert covered > 20  # the comparison is not an empty one


def test_skipped_branches_learn_but_do_not_answer(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.LFFD.SKIP_BRANCHES = ["c7"]
    face, none = np.array([(10.0, 10, 40, 40)]), np.array([False])
    tested, trained = (build_coverage_rule(tiny_cfg, training) for training in (False, True))
    assert tested.levels == ("c4",)
    assert tested(face, none, SIZE).outcomes.tolist() == [1]
    assert trained.levels == ("c4", "c7")
    assert trained(face, none, SIZE).outcomes.tolist() == [0]


def test_small_images_are_enlarged_as_in_inference(rule: ReceptiveFieldCoverage) -> None:
    assert rule.searched_size(300, 200) == (300, 200)
    assert rule.searched_size(64, 100) == (128, 200)
    assert rule.searched_size(6, 100) is None  # no face of MIN_FACE pixels fits
