"""Evaluators for Detectron2's trainer and ``--eval-only``.

Detections are written to disk during inference and gathered at the end. The results are computed
from the text files that the evaluators write, so they can be computed again from these files.
"""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import BoxMode
from detectron2.utils import comm

from face_d2.data.catalog import check_records
from face_d2.data.labels.notation import plain_name
from face_d2.data.wider_face import ATTRIBUTES, WiderFaceImage
from face_d2.evaluation.coco import FaceCOCOEvaluator
from face_d2.evaluation.fddb.files import write_fddb_detections
from face_d2.evaluation.fddb.protocol import FDDBResult, fddb_report, fddb_roc, format_fddb
from face_d2.evaluation.protocol import describe_test_settings
from face_d2.evaluation.shards import ShardedEvaluator
from face_d2.evaluation.wider_face.files import is_image_name, write_archive, write_image
from face_d2.evaluation.wider_face.ground_truth import (
    WiderFaceGroundTruth,
    ground_truth_from_images,
    read_ground_truth,
)
from face_d2.evaluation.wider_face.protocol import WiderFaceResult, widerface_ap
from face_d2.evaluation.wider_face.report import format_widerface, widerface_report, write_json
from face_d2.utils.files import replaced_folder

if TYPE_CHECKING:
    from detectron2.config import CfgNode

__all__ = ["FDDBEvaluator", "WiderFaceEvaluator", "build_evaluator", "dataset_ground_truth"]

_logger = logging.getLogger(__name__)


class _StreamingEvaluator(ShardedEvaluator):
    """Base class of both evaluators: detections on disk, results in ``output_dir/dataset_name``
    (with ``-`` in place of characters that a file name should not contain).

    An image that could not be decoded counts as an image without detections. It is named in the log
    and in the JSON result (``unreadable``: image id -> reason).
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path,
        *,
        protocol: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(dataset_name, output_dir)
        self._folder = Path(output_dir) / plain_name(dataset_name)
        self._protocol = dict(protocol or {})

    def _gather_unreadable(self) -> dict[str, str]:
        """Image id -> reason of all images that could not be decoded; also logs them."""
        unreadable = self._shards.gather_unreadable()
        if unreadable:
            _logger.warning(
                "%d images of %s could not be decoded and count as zero detections:\n%s",
                len(unreadable),
                self._dataset_name,
                "\n".join(unreadable.values()),
            )
        return unreadable


class WiderFaceEvaluator(_StreamingEvaluator):
    """WIDER FACE's protocol on a registered data set.

    Writes ``predictions/EVENT/NAME.txt`` and ``widerface.json`` (results, 95 % intervals,
    breakdowns, errors, test settings) to ``output_dir/dataset_name``. For a data set without
    labels, it writes ``submission.zip`` instead of the JSON: an archive for submission.

    Args:
        dataset_name: a registered data set whose metadata has ``evaluator_type`` "widerface", for
            example of :func:`face_d2.data.register.register_wider_face`.
        output_dir: folder for the results of the first process; the others use it temporarily.
        protocol: description of the test settings, saved with the results (see
            :func:`face_d2.evaluation.protocol.describe_test_settings`).
        bootstrap: number of resamples for the intervals; 0 for none.

    Attributes:
        result: the :class:`WiderFaceResult` of the last evaluation, in the first process; None
            before it, in other processes and without labels.

    Raises:
        ValueError: the ground truth does not fit the data set (see :func:`dataset_ground_truth`).
    """

    result: WiderFaceResult | None = None

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path,
        *,
        protocol: Mapping[str, str] | None = None,
        bootstrap: int = 1000,
    ) -> None:
        super().__init__(dataset_name, output_dir, protocol=protocol)
        self._bootstrap = bootstrap
        # Read before inference, so that invalid ground truth is reported immediately.
        self._ground_truth = dataset_ground_truth(dataset_name) if comm.is_main_process() else None

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gathers, writes and scores.

        Returns:
            ``{"widerface": {"AP_easy", "AP_medium", "AP_hard", "recall_easy", ...}}`` in 0-100 in
            the first process; ``{}`` elsewhere and for a data set without labels.
        """
        unreadable = self._gather_unreadable()
        predictions = self._folder / "predictions"
        if not comm.is_main_process():
            list(self._shards.gather())  # takes part; the first process alone gets detections
            return {}
        with replaced_folder(predictions) as temporary:
            for name, rows in self._shards.gather():
                write_image(temporary, name, rows)
        if self._ground_truth is None:
            archive = write_archive(predictions, self._folder / "submission.zip")
            _logger.info(
                "%s has no labels; detections for submission: %s", self._dataset_name, archive
            )
            return {}
        self.result = widerface_ap(predictions, self._ground_truth, bootstrap=self._bootstrap)
        report = widerface_report(self.result, self._protocol)
        report = {"dataset": self._dataset_name, **report, "unreadable": unreadable}
        write_json(report, self._folder / "widerface.json")
        _logger.info("%s\n%s", self._dataset_name, format_widerface(report))
        figures = {key: report[key] for key in self.result}
        recalls = {f"recall_{setting}": value for setting, value in report["recall"].items()}
        return {"widerface": {**figures, **recalls}}


class FDDBEvaluator(_StreamingEvaluator):
    """FDDB's protocol on all ten folds together, with the size of each image as canvas.

    Writes ``detections.txt`` in FDDB's format, ``DiscROC.txt`` and ``ContROC.txt`` as the official
    tool does, and ``fddb.json`` to ``output_dir/dataset_name``.

    Args:
        dataset_name: a data set whose metadata contain ``image_root`` and ``folds_folder``.
        output_dir: folder for the results of the first process; the others use it temporarily.
        protocol: description of the test settings, saved with the results.

    Attributes:
        result: the :class:`FDDBResult` of the last evaluation, in the first process.
    """

    result: FDDBResult | None = None

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gathers, writes and scores.

        Returns:
            ``{"fddb": {"disc@1000": , "cont@1000": }}`` (true positive rate in 0-100 at 1,000 false
            positives) in the first process, ``{}`` elsewhere.
        """
        unreadable = self._gather_unreadable()
        detections = dict(self._shards.gather())
        if not comm.is_main_process():
            return {}
        metadata = MetadataCatalog.get(self._dataset_name)
        order = [record["image_id"] for record in DatasetCatalog.get(self._dataset_name)]
        file = self._folder / "detections.txt"
        write_fddb_detections({name: detections.get(name, ()) for name in order}, file)
        self.result = fddb_roc(file, metadata.folds_folder, image_root=metadata.image_root)
        self.result.write(self._folder)
        report = fddb_report(self.result, self._protocol)
        report = {"dataset": self._dataset_name, **report, "unreadable": unreadable}
        write_json(report, self._folder / "fddb.json")
        _logger.info("%s\n%s", self._dataset_name, format_fddb(self.result, self._protocol))
        return {"fddb": {key: report[key] for key in ("disc@1000", "cont@1000")}}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str | Path) -> DatasetEvaluators:
    """The evaluators of a data set, by its ``evaluator_type``: "widerface" or "fddb".

    Args:
        cfg: a config; its test settings are saved with the results.
        dataset_name: a registered data set.
        output_dir: the results are written to a folder in it, named after the data set.

    Raises:
        ValueError: the data set has another evaluator type, or none.
    """
    protocol = describe_test_settings(cfg)
    metadata = MetadataCatalog.get(dataset_name)
    kind = metadata.get("evaluator_type")
    if kind == "fddb":
        return DatasetEvaluators([FDDBEvaluator(dataset_name, output_dir, protocol=protocol)])
    if kind != "widerface":
        raise ValueError(
            f"data set {dataset_name!r} has evaluator_type {kind!r}; face detectors are evaluated "
            "on 'widerface' and 'fddb' (see face_d2.data.register.register_wider_face and, for a "
            "COCO json, face_d2.data.coco.register_coco_faces). Labels of your own need no "
            "registering: FORMAT:LABELS:IMAGES in DATASETS.TEST."
        )
    evaluators: list[ShardedEvaluator] = [
        WiderFaceEvaluator(dataset_name, output_dir, protocol=protocol)
    ]
    if not _unlabeled(dataset_name):
        evaluators.append(FaceCOCOEvaluator(dataset_name, output_dir))
    return DatasetEvaluators(evaluators)


def dataset_ground_truth(dataset_name: str) -> WiderFaceGroundTruth | None:
    """The ground truth for the evaluation of a registered data set.

    Args:
        dataset_name: the data set. ``eval_ground_truth`` in its metadata can name the folder of the
            official .mat files. If the files exist, they are used, restricted to the images of the
            data set.

    Returns:
        The official ground truth; without the .mat files, the annotations of the data set with
        lists by face height; None for a data set without labels.

    Raises:
        ValueError: an image is not in the official files, an ``image_id`` is not "event/name", an
            image has no annotations, or they have several categories.
    """
    if _unlabeled(dataset_name):
        return None
    records = DatasetCatalog.get(dataset_name)
    check_records(records, dataset_name)
    names = [record["image_id"] for record in records]
    wrong = [name for name in names if not is_image_name(name)]
    if wrong:
        raise ValueError(
            f"data set {dataset_name!r} has the image_id {wrong[0]!r}; expected texts "
            "'event/name', by which prediction files go."
        )
    official = MetadataCatalog.get(dataset_name).get("eval_ground_truth")
    if official and (Path(official) / "wider_face_val.mat").is_file():
        ground_truth = read_ground_truth(official)
        whole = len(names) == len(ground_truth)
        return ground_truth.subset(names, None if whole else dataset_name)
    if official:
        _logger.warning("no official .mat files in %s: Easy/Medium/Hard by face height.", official)
    return ground_truth_from_images([_image_of(record) for record in records], dataset_name)


def _unlabeled(dataset_name: str) -> bool:
    return MetadataCatalog.get(dataset_name).get("annotation_file", "") is None


def _image_of(record: dict[str, Any]) -> WiderFaceImage:
    """Converts a dataset dict to the form of WIDER FACE's reader; ``iscrowd`` faces are invalid."""
    faces = record["annotations"]
    boxes = [BoxMode.convert(face["bbox"], face["bbox_mode"], BoxMode.XYWH_ABS) for face in faces]
    attributes = [
        [face.get("iscrowd", 0) if name == "invalid" else face.get(name, 0) for name in ATTRIBUTES]
        for face in faces
    ]
    return WiderFaceImage(
        name=record["image_id"] + (Path(record["file_name"]).suffix or ".jpg"),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        attributes=np.array(attributes, dtype=np.int64).reshape(-1, len(ATTRIBUTES)),
    )
