"""Computes which faces of a data set a detector can learn, without training it.

A face without a positive anchor or receptive field does not contribute to training and is detected
by chance only. Annotations and image sizes are enough to count such faces; no pixels are read. The
rule is that of the detector (:mod:`face_d2.modeling.coverage_rule`), and sizes are those of the
mappers.
"""

from __future__ import annotations

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
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
from face_d2.modeling.coverage_rule import CoverageRule, FaceCoverage, build_coverage_rule
from face_d2.plugins import import_detectors

__all__ = ["Coverage", "CoverageClass", "coverage_report", "format_coverage", "measure_coverage"]

#: Minimum height of faces in Hard, exclusive, in pixels of the original image.
_HARD_HEIGHT = 10


@dataclass(frozen=True)
class CoverageClass:
    """The faces of one height class.

    Attributes:
        faces: number of faces; in training crops, number of appearances.
        shares: way of coverage or reason for no coverage -> fraction of the faces, 0-1; the sum is
            1.
        covered: fraction of the faces that is covered.
        positives: mean number of positive anchors or receptive fields per face.
        levels: level -> fraction of the faces with a positive on it; a face can have several
            levels.
    """

    faces: int
    shares: dict[str, float]
    covered: float
    positives: float
    levels: dict[str, float]


@dataclass(frozen=True, eq=False)
class Coverage:
    """The coverage of every face that counts.

    Attributes:
        dataset: name of the data set.
        images: number of images or crops.
        ignored: number of ignored (invalid) faces.
        protocol: description of the settings.
        unit: what is assigned to faces, in the plural.
        covered_by, uncovered, levels: see :class:`CoverageRule`.
        heights: (F,) heights of the faces in pixels of the original images.
        outcomes: (F,) index into ``covered_by + uncovered``.
        positives: (F, L) number of positives of the faces on every level.
    """

    dataset: str
    images: int
    ignored: int
    protocol: dict[str, str]
    unit: str
    covered_by: tuple[str, ...]
    uncovered: tuple[str, ...]
    levels: tuple[str, ...]
    heights: NDArray[np.float64]
    outcomes: NDArray[np.int64]
    positives: NDArray[np.int64]

    def of(self, members: NDArray[np.bool_]) -> CoverageClass:
        """The figures of the faces in a mask (F,) with at least one face."""
        names = (*self.covered_by, *self.uncovered)
        shares = np.bincount(self.outcomes[members], minlength=len(names)) / members.sum()
        positives = self.positives[members]
        return CoverageClass(
            faces=int(members.sum()),
            shares=dict(zip(names, shares.tolist())),
            covered=float(shares[: len(self.covered_by)].sum()),
            positives=float(positives.sum(axis=1).mean()),
            levels=dict(zip(self.levels, (positives > 0).mean(axis=0).tolist())),
        )

    def by_height(self) -> dict[str, CoverageClass]:
        """The height classes of the AP breakdown that contain faces."""
        classes = height_classes(self.heights)
        return {label: self.of(members) for label, members in classes if members.any()}

    def totals(self) -> dict[str, CoverageClass]:
        """All faces, and those above the minimum height of WIDER FACE's Hard."""
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
    """Computes the coverage of every face of a data set.

    Args:
        cfg: the config of a detector with a coverage rule; its weights are not needed.
        dataset_name: a registered data set with annotations, or labels by their notation (see
            :mod:`face_d2.data.catalog`).
        training: use random training crops (``INPUT.MAPPER``) instead of test images.
        draws: number of crops per image; for ``training`` only.
        seed: seed of the crops.
        progress: show a progress bar.

    Returns:
        The coverage. Ignored faces (``iscrowd``) are left out, but influence others as in training.
        In crops, a face counts once for every crop that shows it.

    Raises:
        ValueError: the meta-architecture has no rule, the data set has no labels or no face that
            counts, or ``draws`` is less than 1.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; at least 1 is needed.")
    import_detectors()
    rule = build_coverage_rule(cfg, training)
    register_data_sets([dataset_name])
    records = DatasetCatalog.get(dataset_name)
    if MetadataCatalog.get(dataset_name).get("annotation_file", "") is None:
        raise ValueError(f"data set {dataset_name!r} has no labels, so its faces are not known.")
    # An image that cannot be read has no size, and no face in it can be detected.
    records = [record for record in records if record["height"] > 0]
    heights, outcomes, positives, ignored = [], [], [], 0
    crops = _training_faces(records, cfg, draws, seed)
    source = crops if training else _test_faces(records, cfg, rule)
    total = len(records) * (draws if training else 1)
    bar = tqdm(source, total=total, unit="image", disable=not progress, desc=dataset_name)
    for original_heights, boxes, ignore, size in bar:
        result = _judge(rule, boxes, ignore, size)
        heights.append(original_heights[~ignore])
        outcomes.append(result.outcomes[~ignore])
        positives.append(result.positives[~ignore])
        ignored += int(ignore.sum())
    if not sum(map(len, heights)):
        raise ValueError(
            f"data set {dataset_name!r} has no face that counts in {len(records)} images; there is "
            "nothing to measure."
        )
    return Coverage(
        dataset=dataset_name,
        images=total,
        ignored=ignored,
        protocol=_protocol(cfg, training, draws, seed),
        unit=rule.unit,
        covered_by=rule.covered_by,
        uncovered=rule.uncovered,
        levels=rule.levels,
        heights=np.concatenate(heights),
        outcomes=np.concatenate(outcomes),
        positives=np.concatenate(positives),
    )


def coverage_report(coverage: Coverage) -> dict[str, Any]:
    """The table as JSON data; fractions are in 0-100."""
    return {
        "dataset": coverage.dataset,
        "images": coverage.images,
        "ignored": coverage.ignored,
        "protocol": coverage.protocol,
        "unit": coverage.unit,
        "covered_by": list(coverage.covered_by),
        "uncovered": list(coverage.uncovered),
        "totals": {label: _percentages(row) for label, row in coverage.totals().items()},
        "by_height": {label: _percentages(row) for label, row in coverage.by_height().items()},
    }


def format_coverage(coverage: Coverage) -> str:
    """The table by face height, and the settings, as lines of text."""
    # With only one way of coverage, its column would equal that of the sum.
    names = [n for n in (*coverage.covered_by, *coverage.uncovered) if coverage.covered_by != (n,)]
    rows = {**coverage.by_height(), **coverage.totals()}
    table = [["height, px", "faces", "covered", *names, f"{coverage.unit} a face"]]
    table_of_levels = [["height, px", *coverage.levels]]
    for label, row in rows.items():
        shares = [row.covered, *(row.shares[name] for name in names)]
        cells = [f"{100 * share:.1f}" for share in shares]
        table.append([label, f"{row.faces:,}", *cells, f"{row.positives:.1f}"])
        table_of_levels.append([label, *(f"{100 * share:.1f}" for share in row.levels.values())])
    return "\n".join(
        [
            f"Faces of {coverage.dataset} with positive {coverage.unit}, in percent "
            f"({coverage.images:,} images, {coverage.ignored:,} ignored faces left out)",
            _aligned(table),
            f"Faces with positive {coverage.unit} on each level, in percent",
            _aligned(table_of_levels),
            "measured with",
            format_protocol(coverage.protocol),
        ]
    )


_Faces = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], tuple[int, int] | None]


def _test_faces(
    records: list[dict[str, Any]], cfg: CfgNode, rule: CoverageRule
) -> Iterator[_Faces]:
    """For each image: heights, boxes in the network's input, ignored faces, and the input size."""
    mapper = FaceDatasetMapper(cfg, is_train=False)
    # The mapper's rule depends only on the size, so images of the same size are handled together.
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
    """Like :func:`_test_faces`, for random crops of the training mapper."""
    mapper = build_train_mapper(cfg)
    state = np.random.get_state()  # the mappers use the global generator
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
) -> FaceCoverage:
    """Applies the rule; faces of an image that is not processed get the first reason in
    ``uncovered``."""
    if size is not None and len(boxes):
        return rule(boxes, ignore, size)
    outcomes = np.full(len(boxes), len(rule.covered_by), dtype=np.int64)
    return FaceCoverage(outcomes, np.zeros((len(boxes), len(rule.levels)), dtype=np.int64))


def _protocol(cfg: CfgNode, training: bool, draws: int, seed: int) -> dict[str, str]:
    tested = describe_test_settings(cfg)
    view = f"as tested: {tested['image size']}"
    if training:
        node = cfg.INPUT[cfg.INPUT.MAPPER.upper()]
        crop = f"{node.SIZE} x {node.SIZE}" if node.get("ENABLED", True) else "whole images"
        view = f"training crops ({cfg.INPUT.MAPPER}, {crop}), {draws} an image, seed {seed}"
    return {"detector": tested["detector"], "images": view}


def _percentages(row: CoverageClass) -> dict[str, Any]:
    return {
        "faces": row.faces,
        "covered": 100 * row.covered,
        "shares": {name: 100 * share for name, share in row.shares.items()},
        "positives_per_face": row.positives,
        "levels": {name: 100 * share for name, share in row.levels.items()},
    }


def _aligned(table: list[list[str]]) -> str:
    sides = ["left"] + ["right"] * (len(table[0]) - 1)
    return tabulate(table, tablefmt="plain", disable_numparse=True, colalign=sides)
