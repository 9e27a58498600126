"""Stores detections on disk during an evaluation and gathers them from all processes in blocks."""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from numpy.typing import NDArray

from face_d2.data.mapper import UNREADABLE
from face_d2.evaluation.wider_face.files import check_detections

__all__ = ["DetectionShards", "ShardedEvaluator", "detection_rows"]

#: Number of rows that each process sends at a time, 5 MB.
_BLOCK_ROWS = 1 << 18
_COLUMNS = 5


def detection_rows(instances: Instances) -> NDArray[np.float32]:
    """(N, 5) float32 x, y, w, h, score of the output of a model, in the same order."""
    boxes = instances.pred_boxes.tensor.detach().cpu().float().numpy()
    scores = instances.scores.detach().cpu().float().numpy()
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], scores[:, None]], axis=1)


class DetectionShards:
    """Stores the detections of this process in an unnamed file and gathers them in the first
    process.

    The file has no name, so a killed run leaves no file. Only the names of the images are in
    memory.

    Args:
        folder: folder of the file, which takes 20 bytes per detection.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = io.BytesIO()
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._file.close()
        self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  (until next reset)
        self._names: list[str] = []
        self._counts: list[int] = []
        self._unreadable: dict[str, str] = {}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Stores a batch; an image that could not be decoded has no detection.

        Args:
            inputs: dicts with ``image_id``, and ``UNREADABLE`` if the image could not be decoded.
            outputs: dicts with ``instances``: ``pred_boxes`` (XYXY, original-image pixels) and
                ``scores``.

        Raises:
            ValueError: a box or score is NaN or infinite; the message names the image and row.
        """
        for item, output in zip(inputs, outputs):
            name = str(item["image_id"])
            rows = detection_rows(output["instances"])
            if UNREADABLE in item:
                self._unreadable[name] = item[UNREADABLE]
                rows = rows[:0]
            self.add(name, rows)

    def gather_unreadable(self) -> dict[str, str]:
        """Image id -> reason of all processes, in the first process; all processes must call it."""
        gathered: dict[str, str] = {}
        for part in comm.gather(self._unreadable):
            gathered.update(part)
        return dict(sorted(gathered.items()))

    def add(self, name: str, rows: NDArray[np.float32]) -> None:
        """Stores the detections of one image, (N, 5) x, y, w, h, score.

        Raises:
            ValueError: a number is not finite or a size is negative; the message names image and
                row.
        """
        check_detections(rows, f"detections on {name!r}")
        self._file.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())
        self._names.append(name)
        self._counts.append(len(rows))

    def gather(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yields (name, (N, 5) rows) of every image, in the first process only.

        All processes must exhaust the iterator. An image that several processes have evaluated,
        which happens if a sampler pads their shares to equal lengths, is yielded once.
        """
        blocks = self._block_borders()
        rounds = max(comm.all_gather(len(blocks) - 1))
        self._file.seek(0)
        seen: set[str] = set()
        for number in range(rounds):
            start, stop = blocks[number : number + 2] if number + 1 < len(blocks) else (0, 0)
            for names, counts, rows in comm.gather(self._read(start, stop)):
                ends = np.cumsum(counts, dtype=np.int64)
                for name, count, end in zip(names, counts, ends):
                    if name not in seen:
                        seen.add(name)
                        yield name, rows[end - count : end]

    def _block_borders(self) -> list[int]:
        """Image indices 0 = b0 < b1 < ... = I that divide this shard into blocks."""
        block = np.cumsum(self._counts, dtype=np.int64) // _BLOCK_ROWS
        cuts = (np.flatnonzero(np.diff(block)) + 1).tolist()
        return [0, *cuts, len(self._names)] if self._names else [0]

    def _read(self, start: int, stop: int) -> tuple[list[str], list[int], NDArray[np.float32]]:
        """Reads the images with indices ``start`` to ``stop``, the next ones in the file."""
        counts = self._counts[start:stop]
        content = self._file.read(sum(counts) * _COLUMNS * np.dtype(np.float32).itemsize)
        rows = np.frombuffer(content, dtype=np.float32).reshape(-1, _COLUMNS)
        return self._names[start:stop], counts, rows


class ShardedEvaluator(DatasetEvaluator):
    """Base class of the evaluators, which keeps the detections in :class:`DetectionShards`.

    Args:
        dataset_name: a registered data set.
        output_dir: folder for detections while the evaluation runs.
    """

    def __init__(self, dataset_name: str, output_dir: str | Path) -> None:
        self._dataset_name = dataset_name
        self._shards = DetectionShards(output_dir)

    def reset(self) -> None:
        self._shards.reset()

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Stores a batch; see :meth:`DetectionShards.process`."""
        self._shards.process(inputs, outputs)
