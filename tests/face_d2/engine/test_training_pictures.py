"""``VIS_PERIOD``: pictures of training crops, which change nothing in the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from helpers.recorded_losses import build_trainer, losses_of
from torch import Tensor

from face_d2.modeling.base import OneStageDetector


@pytest.mark.parametrize(("config", "side"), [("df2s2", 96), ("lffd", 128)])
def test_pictures_come_in_their_period_and_change_no_loss(
    words: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, config: str, side: int
) -> None:
    pictures: dict[int, Any] = {}

    def put_image(storage: EventStorage, name: str, picture: np.ndarray) -> None:
        pictures[storage.iter] = picture

    monkeypatch.setattr(EventStorage, "put_image", put_image)
    plain = losses_of(build_trainer(words("TEST.BEST_METRIC", "", config=config)))
    assert not pictures
    overrides = ("TEST.BEST_METRIC", "", "VIS_PERIOD", 2)
    assert losses_of(build_trainer(words(*overrides, config=config))) == plain
    assert list(pictures) == [0, 2]
    for picture in pictures.values():
        assert picture.shape == (3, 2 * side, 4 * side)


class _FixedDetector(OneStageDetector):
    """Finds two boxes in every image, the first one with the better score."""

    def __init__(self) -> None:
        super().__init__(
            pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3, input_format="BGR", vis_period=5
        )

    def losses(self, images: ImageList, targets: list[Instances]) -> dict[str, Tensor]:
        return {}

    def detect(self, images: ImageList) -> list[Instances]:
        assert not self.training
        boxes, scores = torch.tensor([[30.0, 10, 50, 40], [5, 5, 70, 50]]), torch.tensor([0.9, 0.8])
        size = images.image_sizes[0]
        return [self.detections(size, boxes, scores, torch.zeros(2, dtype=torch.int64))]


@pytest.mark.parametrize(("iteration", "count"), [(10, 1), (11, 0)])
def test_faces_are_at_the_left_and_as_many_detections_at_the_right(
    iteration: int, count: int
) -> None:
    model = _FixedDetector().train()
    face = Instances((60, 80), gt_boxes=Boxes(torch.tensor([[10.0, 20, 30, 40]])))
    item = {"image": torch.zeros(3, 60, 80, dtype=torch.uint8), "instances": face}
    with EventStorage(iteration) as storage:
        model([item, item])
    assert model.training
    assert len(storage._vis_data) == count
    for _, picture, at in storage._vis_data:
        assert at == iteration
        drawn = picture.max(axis=0) > 60
        for half, box in ((drawn[:, :160], (20, 40, 60, 80)), (drawn[:, 160:], (60, 20, 100, 80))):
            rows, columns = np.flatnonzero(half.any(axis=1)), np.flatnonzero(half.any(axis=0))
            ends = [columns[0], rows[0], columns[-1], rows[-1]]
            np.testing.assert_allclose(ends, box, atol=3)


def test_detectron2s_own_crops_are_refused(words: Callable[..., list[str]]) -> None:
    with pytest.raises(ValueError, match=r"INPUT\.CROP\.ENABLED is True.*set it to False"):
        build_trainer(words("INPUT.CROP.ENABLED", True))
