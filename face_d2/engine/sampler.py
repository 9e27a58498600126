"""The order in which training sees images, as a function of a seed and the iteration alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

__all__ = ["Draw", "TrainingBatches"]


class Draw(NamedTuple):
    """One image of the endless stream of training images.

    Attributes:
        position: in the stream, from 0; what is random about this image's augmentation depends on
            the seed and on this number.
        index: of the image in the data set.
    """

    position: int
    index: int


class TrainingBatches(Sampler[list[Draw]]):
    """Endless batches of shuffled images that a resumed run can enter anywhere.

    Detectron2's own sampler starts over when a run is resumed, so that some images are seen more
    often than others and no resumed run equals an uninterrupted one. Here epoch e is a permutation
    drawn from (seed, e); process r of W takes every W-th image of the stream, from the r-th on.

    Args:
        groups: one label per image; a batch holds images of one label (aspect-ratio grouping), or
            0 for all.
        batch_size: images of a batch of one process.
        seed: chooses the order; the same in all processes.
        rank: of this process.
        world_size: number of processes.

    Attributes:
        seed: as given; change it, and ``start``, before iterating.
        start: how many batches to pass over, the iteration from which a run is resumed.

    Raises:
        ValueError: there is no image, or a number is out of range.
    """

    def __init__(
        self,
        groups: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(groups) == 0:
            raise ValueError("there is no image to train on; see DATASETS.TRAIN.")
        if batch_size < 1:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH gives each of {world_size} processes {batch_size} images; "
                "expected at least 1."
            )
        if seed < 0 or not 0 <= rank < world_size:
            raise ValueError(f"seed {seed}, process {rank} of {world_size}: out of range.")
        self._groups = list(groups)
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self.seed = seed
        self.start = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        # Which batch an image falls into depends on all before it; replaying them costs about half
        # a second per million images.
        return islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[Draw]]:
        waiting: dict[int, list[Draw]] = {}
        for draw in islice(self._stream(), self._rank, None, self._world_size):
            group = self._groups[draw.index]
            batch = waiting.setdefault(group, [])
            batch.append(draw)
            if len(batch) == self._batch_size:
                yield waiting.pop(group)

    def _stream(self) -> Iterator[Draw]:
        count = len(self._groups)
        epoch = 0
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(count)
            for place, index in enumerate(order.tolist()):
                yield Draw(epoch * count + place, index)
            epoch += 1
