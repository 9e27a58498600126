"""The order of training images, which depends only on a seed and the iteration."""

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
        position: position in the stream, starting at 0. The random augmentation of the image
            depends only on the seed and on this number.
        index: index of the image in the data set.
    """

    position: int
    index: int


class TrainingBatches(Sampler[list[Draw]]):
    """Endless batches of shuffled images, which can start at any iteration.

    Detectron2's sampler starts again when a run is resumed. Some images are then used more often
    than others, and the resumed run differs from an uninterrupted one. Here, epoch e is a random
    permutation that depends on (seed, e). Process r of W takes every W-th image of the stream,
    starting with image r.

    Args:
        groups: one label per image. All images of a batch have the same label (aspect-ratio
            grouping); use 0 for all images to disable this.
        batch_size: images per batch of one process.
        seed: determines the order; the same in all processes.
        rank: rank of this process.
        world_size: number of processes.

    Attributes:
        seed: the seed; change it, and ``start``, before iterating.
        start: number of batches to skip, the iteration at which a run is resumed.

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
        # The batch of an image depends on all earlier images. Repeating their grouping takes about
        # half a second per million images.
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
