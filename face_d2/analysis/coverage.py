"""Which faces of a data set a detector can answer for, before it is trained.

A face that owns no positive anchor or receptive field teaches nothing and is found by luck only.
Annotations and image sizes suffice to count such faces; no pixel is read. The rule is the
detector's own (:mod:`face_d2.modeling.coverage_rule`), the sizes are those of the mappers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from face_d2.data.catalog import register_data_sets
from face_d2.data.mapper import FaceDatasetMapper, build_train_mapper, face_arrays
from face_d2.evaluation.protocol import describe_test_settings, format_protocol
from face_d2.evaluation.wider_face.breakdown import height_classes
from face_d2.modeling.coverage_rule import CoverageRule, FaceAnswers, build_coverage_rule
from face_d2.plugins import import_detectors

__all__ = ["Coverage", "CoverageClass", "coverage_report", "format_coverage", "measure_coverage"]

#: Hard's faces are higher than this, in pixels of the original image.
_HARD_HEIGHT = 10


@dataclass(frozen=True)
class CoverageClass:
    """The faces of one class of height.

    Attributes:
        faces: how many there are; in training crops, how many times they appear.
        shares: answer or gap -> share of the faces, 0-1. The shares add up to 1.
        answered: share that is answered for in any way.
        positives: mean number of positive anchors or receptive fields of a face.
        levels: level -> share of the faces that have a positive there; they may overlap.
    """

    faces: int
    shares: dict[str, float]
    answered: float
    positives: float
    levels: dict[str, float]


@dataclass(frozen=True, eq=False)
class Coverage:
    """The verdict on every face that counts.

    Attributes:
        dataset: its name.
        images: how many images, or crops, were looked at.
        ignored: how many faces do not count (invalid ones).
        protocol: the set-up in words.
        unit: what answers, in the plural.
        answers, gaps, levels: as of :class:`CoverageRule`.
        heights: (F,) heights of the faces in pixels of the original images.
        verdicts: (F,) index into ``answers`` followed by ``gaps``.
        positives: (F, L) positives of the faces on every level.
    """

    dataset: str
    images: int
    ignored: int
    protocol: dict[str, str]
    unit: str
    answers: tuple[str, ...]
    gaps: tuple[str, ...]
    levels: tuple[str, ...]
    heights: NDArray[np.float64]
    verdicts: NDArray[np.int64]
    positives: NDArray[np.int64]

    def of(self, members: NDArray[np.bool_]) -> CoverageClass:
        """The figures of some faces, by their (F,) mask; at least one is needed."""
        names = (*self.answers, *self.gaps)
        shares = np.bincount(self.verdicts[members], minlength=len(names)) / members.sum()
        positives = self.positives[members]
        return CoverageClass(
            faces=int(members.sum()),
            shares=dict(zip(names, shares.tolist())),
            answered=float(shares[: len(self.answers)].sum()),
            positives=float(positives.sum(axis=1).mean()),
            levels=dict(zip(self.levels, (positives > 0).mean(axis=0).tolist())),
        )

    def by_height(self) -> dict[str, CoverageClass]:
        """The classes of height that the evaluation breaks AP down by, those with faces."""
        classes = height_classes(self.heights)
        return {label: self.of(members) for label, members in classes if members.any()}

    def totals(self) -> dict[str, CoverageClass]:
        """All faces, and those that WIDER FACE's Hard counts, by height."""
        groups = {"all": self.heights > 0, "all > 10": self.heights > _HARD_HEIGHT}
        return {label: self.of(members) for label, members in groups.items() if members.any()}


def measure_coverage(
    cfg: CfgNode,
    dataset_name: str,
    *,
    training: bool = False,
    draws: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> Coverage:
    """Judges every face of a data set.

    Args:
        cfg: of a detector that has a rule; its weights are not needed.
        dataset_name: a registered data set with annotations, or labels by their notation (see
            :mod:`face_d2.data.catalog`).
        training: judge random training crops (``INPUT.MAPPER``) in place of the images as tested.
        draws: how many crops of every image; for ``training`` only.
        seed: of the crops.
        progress: show a bar.

    Returns:
        The verdicts. Faces that do not count (``iscrowd``) are left out, but stand in the way of
        others as they do in training; in crops a face counts once for every time it appears.

    Raises:
        ValueError: the meta-architecture has no rule, the data set has no labels or no face that
            counts, or ``draws`` is less than 1.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; at least 1 is needed.")
    import_detectors()
    rule = build_coverage_rule(cfg, training)
    # An image that cannot be read has no size; nothing on it can be found.
    records = [r for r in _annotated_records(dataset_name) if r["height"] > 0]
    heights, verdicts, positives, ignored = [], [], [], 0
    crops = _training_faces(records, cfg, draws, seed)
    source = crops if training else _test_faces(records, cfg, rule)
    total = len(records) * (draws if training else 1)
    bar = tqdm(source, total=total, unit="image", disable=not progress, desc=dataset_name)
    for original_heights, boxes, ignore, size in bar:
        answers = _judge(rule, boxes, ignore, size)
        heights.append(original_heights[~ignore])
        verdicts.append(answers.verdicts[~ignore])
        positives.append(answers.positives[~ignore])
        ignored += int(ignore.sum())
    if not sum(map(len, heights)):
        raise ValueError(
            f"data set {dataset_name!r} has no face that counts in {len(records)} images; there is "
            "nothing to answer for."
        )
    return Coverage(
        dataset=dataset_name,
        images=total,
        ignored=ignored,
        protocol=_protocol(cfg, training, draws, seed),
        unit=rule.unit,
        answers=rule.answers,
        gaps=rule.gaps,
        levels=rule.levels,
        heights=np.concatenate(heights),
        verdicts=np.concatenate(verdicts),
        positives=np.concatenate(positives),
    )


def coverage_report(coverage: Coverage) -> dict[str, Any]:
    """Everything of the table as data for a JSON file; shares in 0-100."""
    return {
        "dataset": coverage.dataset,
        "images": coverage.images,
        "ignored": coverage.ignored,
        "protocol": coverage.protocol,
        "unit": coverage.unit,
        "answers": list(coverage.answers),
        "gaps": list(coverage.gaps),
        "totals": {label: _figures(row) for label, row in coverage.totals().items()},
        "by_height": {label: _figures(row) for label, row in coverage.by_height().items()},
    }


def format_coverage(coverage: Coverage) -> str:
    """The table by face height, and the set-up it was measured with, as lines of text."""
    # Where there is but one way to answer, its column would be that of the sum.
    names = [n for n in (*coverage.answers, *coverage.gaps) if coverage.answers != (n,)]
    rows = {**coverage.by_height(), **coverage.totals()}
    table = [["height, px", "faces", "answered", *names, f"{coverage.unit} a face"]]
    for label, row in rows.items():
        shares = [row.answered, *(row.shares[name] for name in names)]
        cells = [f"{100 * share:.1f}" for share in shares]
        table.append([label, f"{row.faces:,}", *cells, f"{row.positives:.1f}"])
    table_of_levels = [["height, px", *coverage.levels]]
    for label, row in rows.items():
        shares = [f"{100 * share:.1f}" for share in row.levels.values()]
        table_of_levels.append([label, *shares])
    return "\n".join(
        [
            f"Faces of {coverage.dataset} that have {coverage.unit} to answer for them, in per "
            f"cent ({coverage.images:,} images, {coverage.ignored:,} ignored faces left out)",
            _aligned(table),
            f"Faces with {coverage.unit} on each level, in per cent",
            _aligned(table_of_levels),
            "measured with",
            format_protocol(coverage.protocol),
        ]
    )


def _annotated_records(dataset_name: str) -> list[dict[str, Any]]:
    register_data_sets([dataset_name])
    records = DatasetCatalog.get(dataset_name)
    if MetadataCatalog.get(dataset_name).get("annotation_file", "") is None:
        raise ValueError(f"data set {dataset_name!r} has no labels, so its faces are not known.")
    return records


_Faces = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], tuple[int, int] | None]


def _test_faces(
    records: list[dict[str, Any]], cfg: CfgNode, rule: CoverageRule
) -> Iterator[_Faces]:
    """Heights, boxes at the network's input, ignored ones and the size of that input, per image."""
    mapper = FaceDatasetMapper(cfg, is_train=False)
    # The mapper's rule depends on the size alone, so that images of one size are placed at once.
    by_size: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_size[record["height"], record["width"]].append(record)
    for size, members in sorted(by_size.items(), key=lambda item: item[0]):
        faces = [face_arrays(record["annotations"]) for record in members]
        boxes, ignore = (np.concatenate(parts) for parts in zip(*faces))
        owner = np.repeat(np.arange(len(members)), [len(part) for _, part in faces])
        placed, index, (height, width) = mapper.place_faces(boxes, ignore, size)
        heights = boxes[index, 3] - boxes[index, 1]
        searched = rule.searched_size(height, width)
        if searched is not None:
            scale = searched[1] / width, searched[0] / height
            placed = placed * np.array(scale * 2)
        for number in range(len(members)):
            chosen = owner[index] == number
            yield heights[chosen], placed[chosen], ignore[index][chosen], searched


def _training_faces(
    records: list[dict[str, Any]], cfg: CfgNode, draws: int, seed: int
) -> Iterator[_Faces]:
    """As :func:`_test_faces`, for crops as the training mapper draws them."""
    mapper = build_train_mapper(cfg)
    state = np.random.get_state()  # the mappers draw from the global generator
    np.random.seed(seed)
    try:
        for record in records:
            boxes, ignore = face_arrays(record["annotations"])
            for _ in range(draws):
                size = record["height"], record["width"]
                placed, index, crop_size = mapper.place_faces(boxes, ignore, size)
                heights = boxes[index, 3] - boxes[index, 1]
                yield heights, placed, ignore[index], crop_size
    finally:
        np.random.set_state(state)


def _judge(
    rule: CoverageRule,
    boxes: NDArray[np.float64],
    ignore: NDArray[np.bool_],
    size: tuple[int, int] | None,
) -> FaceAnswers:
    """The rule's answers; faces of an image that is not searched fall into its first gap."""
    if size is not None and len(boxes):
        return rule(boxes, ignore, size)
    verdicts = np.full(len(boxes), len(rule.answers), dtype=np.int64)
    return FaceAnswers(verdicts, np.zeros((len(boxes), len(rule.levels)), dtype=np.int64))


def _protocol(cfg: CfgNode, training: bool, draws: int, seed: int) -> dict[str, str]:
    tested = describe_test_settings(cfg)
    view = f"as tested: {tested['image size']}"
    if training:
        node = cfg.INPUT[cfg.INPUT.MAPPER.upper()]
        crop = f"{node.SIZE} x {node.SIZE}" if node.get("ENABLED", True) else "whole images"
        view = f"training crops ({cfg.INPUT.MAPPER}, {crop}), {draws} an image, seed {seed}"
    return {"detector": tested["detector"], "images": view}


def _figures(row: CoverageClass) -> dict[str, Any]:
    return {
        "faces": row.faces,
        "answered": 100 * row.answered,
        "shares": {name: 100 * share for name, share in row.shares.items()},
        "positives_per_face": row.positives,
        "levels": {name: 100 * share for name, share in row.levels.items()},
    }


def _aligned(table: list[list[str]]) -> str:
    sides = ["left"] + ["right"] * (len(table[0]) - 1)
    return tabulate(table, tablefmt="plain", disable_numparse=True, colalign=sides)
