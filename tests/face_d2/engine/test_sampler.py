from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from face_d2.engine.sampler import TrainingBatches


def first(batches: TrainingBatches, count: int) -> list[list[tuple[int, int]]]:
    return [[tuple(draw) for draw in batch] for batch in islice(batches, count)]


def test_every_epoch_is_another_permutation() -> None:
    draws = [draw for batch in first(TrainingBatches([0] * 12, 4, 7), 6) for draw in batch]
    assert [position for position, _ in draws] == list(range(24))
    epochs = [[index for _, index in draws[:12]], [index for _, index in draws[12:]]]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]
    other = [index for _, index in first(TrainingBatches([0] * 12, 12, 8), 1)[0]]
    assert other != epochs[0]


@settings(max_examples=50)
@given(
    groups=st.lists(st.integers(0, 1), min_size=1, max_size=20),
    batch_size=st.integers(1, 5),
    start=st.integers(0, 30),
    world_size=st.integers(1, 3),
)
def test_a_resumed_stream_goes_on_where_it_stopped(
    groups: list[int], batch_size: int, start: int, world_size: int
) -> None:
    for rank in range(world_size):
        batches = TrainingBatches(groups, batch_size, 3, rank=rank, world_size=world_size)
        whole = first(batches, start + 10)
        batches.start = start
        assert first(batches, 10) == whole[start:]
        for batch in whole:
            assert len({groups[index] for _, index in batch}) == 1
            assert len(batch) == batch_size


def test_processes_share_the_stream() -> None:
    parts = [
        [d for b in first(TrainingBatches([0] * 10, 2, 5, rank=r, world_size=2), 5) for d in b]
        for r in range(2)
    ]
    whole = [d for b in first(TrainingBatches([0] * 10, 4, 5), 5) for d in b]
    assert sorted(parts[0] + parts[1]) == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(groups=[], batch_size=1, seed=0), "DATASETS.TRAIN"),
        (dict(groups=[0], batch_size=0, seed=0, world_size=3), "IMS_PER_BATCH.*3 processes"),
        (dict(groups=[0], batch_size=1, seed=-1), "seed -1"),
        (dict(groups=[0], batch_size=1, seed=0, rank=2, world_size=2), "process 2 of 2"),
    ],
)
def test_impossible_streams_are_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingBatches(**arguments)  # type: ignore[arg-type]
