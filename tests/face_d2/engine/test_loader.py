from __future__ import annotations

import random
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from face_d2.engine.loader import TrainLoader
from face_d2.engine.sampler import TrainingBatches

RECORDS = [{"file_name": f"{index}.jpg", "index": index} for index in range(10)]


class Noisy:
    """A mapper that uses every generator; the files in ``bad`` cannot be decoded."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self.bad = bad

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        if record["index"] in self.bad:
            return None
        noise = (random.random(), float(np.random.rand()), float(torch.rand(1)))
        return {"index": record["index"], "noise": noise}


def loader(mapper: Noisy, *, workers: int = 0, allowed: float = 1.0, start: int = 0) -> TrainLoader:
    batches = TrainingBatches([0] * len(RECORDS), 3, 11)
    result = TrainLoader(RECORDS, mapper, batches, num_workers=workers, max_bad_fraction=allowed)
    batches.start = start
    return result


@pytest.mark.parametrize("workers", [0, 2])
def test_items_depend_on_seed_and_position_alone(workers: int) -> None:
    whole = list(islice(loader(Noisy()), 8))
    assert list(islice(loader(Noisy(), workers=workers, start=5), 3)) == whole[5:]
    noises = [item["noise"] for batch in whole for item in batch]
    assert len(set(noises)) == len(noises)


def test_the_generators_of_the_process_are_left_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = float(torch.rand(1)), np.random.rand(), random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    next(iter(loader(Noisy())))
    assert (float(torch.rand(1)), np.random.rand(), random.random()) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_undecodable_images_are_replaced_and_counted(workers: int) -> None:
    bad = loader(Noisy(bad=(2, 7)), workers=workers)
    batches = list(islice(bad, 4))
    assert all(len(batch) == 3 for batch in batches)
    assert bad.unreadable == {"2.jpg", "7.jpg"}
    assert not {2, 7} & {item["index"] for batch in batches for item in batch}
    assert all(set(item) == {"index", "noise"} for batch in batches for item in batch)


def test_too_many_undecodable_images_end_the_run() -> None:
    list(islice(loader(Noisy(bad=(2, 7)), allowed=0.2), 8))
    with pytest.raises(RuntimeError, match=r"2 of 10 .*2\.jpg, 7\.jpg.*MAX_BAD_FRACTION 0\.1"):
        list(islice(loader(Noisy(bad=(2, 7)), allowed=0.1), 8))
    with pytest.raises(RuntimeError, match="100 training images in a row"):
        list(islice(loader(Noisy(bad=tuple(range(10)))), 1))


def test_an_impossible_share_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"MAX_BAD_FRACTION is 1\.5"):
        loader(Noisy(), allowed=1.5)
