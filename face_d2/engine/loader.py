"""The resumable training loader, which reports images that cannot be decoded."""

from __future__ import annotations

import logging
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from face_d2.engine.packing import PackedBatch
from face_d2.engine.sampler import Draw, TrainingBatches

__all__ = ["TrainLoader"]

logger = logging.getLogger(__name__)

_ATTEMPTS = 100
_UNREADABLE = "unreadable"

DatasetDict = dict[str, Any]


class TrainLoader:
    """Maps images to training items in worker processes, in an endless stream.

    An item depends only on the seed and on its position in the stream, not on the worker or on
    earlier items. A resumed run therefore gets the same items as an uninterrupted one. Images that
    cannot be decoded are replaced by others and counted.

    Args:
        mapper: maps a dataset dict to a training item; returns None if the image cannot be decoded.
        batches: the images of every batch, in order.
        num_workers: number of worker processes; 0 loads in this process.
        max_bad_fraction: maximum fraction of the images that may be undecodable.
        pin_memory: use pinned memory, from which a GPU copies asynchronously.

    Attributes:
        batches: the sampler of the batches. Set its ``start`` before the first batch is requested.
        unreadable: files that this process could not decode so far.
        latest: the batch that was returned last.
    """

    def __init__(
        self,
        dataset: Sequence[DatasetDict],
        mapper: Callable[[DatasetDict], DatasetDict | None],
        batches: TrainingBatches,
        *,
        num_workers: int,
        max_bad_fraction: float,
        pin_memory: bool = False,
    ) -> None:
        if not 0 <= max_bad_fraction <= 1:
            raise ValueError(f"DATALOADER.MAX_BAD_FRACTION is {max_bad_fraction}; expected 0 to 1.")
        self.batches = batches
        self.unreadable: set[str] = set()
        self.latest: list[DatasetDict] = []
        self._count = len(dataset)
        self._max_bad_fraction = max_bad_fraction
        self._loader = DataLoader(
            _MappedDraws(dataset, mapper, batches),
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=PackedBatch if num_workers else list,
            pin_memory=pin_memory,
            worker_init_fn=_ignore_interrupts,
            # A separate generator, so that the loader does not change torch's global one.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[list[DatasetDict]]:
        """Yields batches.

        Raises:
            RuntimeError: more images than allowed cannot be decoded; the message names them.
        """
        # A generator, so that workers start with the first batch, when the start position is known.
        for loaded in self._loader:
            batch = loaded.unpack() if isinstance(loaded, PackedBatch) else loaded
            for item in batch:
                self.unreadable.update(item.pop(_UNREADABLE))
            if len(self.unreadable) > self._max_bad_fraction * self._count:
                some = ", ".join(sorted(self.unreadable)[:5])
                raise RuntimeError(
                    f"{len(self.unreadable)} of {self._count} training images cannot be decoded "
                    f"({some}, ...), more than DATALOADER.MAX_BAD_FRACTION "
                    f"{self._max_bad_fraction} allows. Restore or remove them, or raise the limit."
                )
            self.latest = batch
            yield batch


class _MappedDraws(Dataset[DatasetDict]):
    """Item i of the stream; random augmentations are seeded by its position."""

    def __init__(
        self,
        dataset: Sequence[DatasetDict],
        mapper: Callable[[DatasetDict], DatasetDict | None],
        batches: TrainingBatches,
    ) -> None:
        self._dataset = dataset
        self._mapper = mapper
        self._batches = batches

    def __getitem__(self, draw: Draw) -> DatasetDict:
        unreadable = []
        with _seeded(self._batches.seed, draw.position):
            index = draw.index
            for _ in range(_ATTEMPTS):
                item = self._mapper(self._dataset[index])
                if item is not None:
                    item[_UNREADABLE] = unreadable
                    return item
                unreadable.append(self._dataset[index]["file_name"])
                index = np.random.randint(len(self._dataset))
        raise RuntimeError(
            f"{_ATTEMPTS} training images in a row cannot be decoded, the last of them "
            f"{unreadable[-1]}; are the files images?"
        )


@contextmanager
def _seeded(seed: int, position: int) -> Iterator[None]:
    """Seeds all random generators that augmentations use, and restores them afterwards."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    words = np.random.SeedSequence([seed, position]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.random.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


def _ignore_interrupts(worker: int) -> None:
    """Ignores Ctrl-C, which terminals also send to workers; the training process handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
