"""COCO-style AP for faces: no cap at 100 detections, sizes by face height, no cached annotations.

Detectron2's COCOEvaluator keeps 100 detections per image, but a fifth of WIDER FACE's validation
faces are beyond the 100th face of their image. It also calls all faces below 32 x 32 small, and it
reuses a JSON file that may be older than the data set. This evaluator builds the annotations from
the dataset dicts each time.
"""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import contextlib
import importlib.util
import io
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from detectron2.utils import comm
from numpy.typing import NDArray

from face_d2.data.catalog import check_records
from face_d2.evaluation.shards import ShardedEvaluator

__all__ = ["HEIGHT_RANGES", "FaceCOCOEvaluator", "coco_ap"]

#: Heights in pixels of WIDER FACE's small, medium and large faces (CVPR 2016, section 4.1).
HEIGHT_RANGES = {"s": (10.0, 50.0), "m": (50.0, 300.0), "l": (300.0, 1e5)}


class FaceCOCOEvaluator(ShardedEvaluator):
    """AP, AP50, AP75, AP by face height (APs, APm, APl) and AR, all in 0-100, under ``bbox``.

    Args:
        dataset_name: a registered data set; annotations with ``iscrowd`` are ignored.
        output_dir: folder for detections while the evaluation runs.

    Raises:
        ValueError: the data set cannot be evaluated (see
            :func:`face_d2.data.catalog.check_records`).
    """

    def __init__(self, dataset_name: str, output_dir: str | Path) -> None:
        super().__init__(dataset_name, output_dir)
        if comm.is_main_process():  # before inference, so that an error is reported immediately
            check_records(DatasetCatalog.get(dataset_name), dataset_name)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Returns ``{"bbox": {...}}`` in the first process, ``{}`` elsewhere."""
        detections = dict(self._shards.gather())
        if not comm.is_main_process():
            return {}
        records = DatasetCatalog.get(self._dataset_name)
        figures = coco_ap(detections, records)
        ranges = ", ".join(f"{k} {low:g}-{high:g}" for k, (low, high) in HEIGHT_RANGES.items())
        logging.getLogger(__name__).info(
            "COCO-style figures on %s (every detection counts; heights in px: %s): %s",
            self._dataset_name,
            ranges,
            "  ".join(f"{key} {value:.2f}" for key, value in figures.items()),
        )
        return {"bbox": figures}


def coco_ap(
    detections: dict[str, NDArray[np.floating]], dataset_dicts: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """COCO-style average precision of one class.

    Args:
        detections: ``{image_id: (N, 5) x, y, w, h, score}``; images without an entry have none.
        dataset_dicts: Detectron2's, with ``annotations``.

    Returns:
        AP, AP50, AP75, APs, APm, APl, AR in 0-100; NaN if no face is in the range.

    Raises:
        ValueError: there are detections for an image that is not in the data set, or two images
            have the same ``image_id``.
    """
    number_of: dict[str, int] = {}
    for number, record in enumerate(dataset_dicts, start=1):
        name = str(record["image_id"])
        if number_of.setdefault(name, number) != number:
            raise ValueError(f"two images of the data set have the image_id {name!r}.")
    unknown = sorted(set(detections) - set(number_of))
    if unknown:
        raise ValueError(f"detections for {unknown[0]!r}, which is not in the data set.")
    faces = [
        _annotation(
            number,
            BoxMode.convert(face["bbox"], face["bbox_mode"], BoxMode.XYWH_ABS),
            face.get("iscrowd", 0),
        )
        for number, record in enumerate(dataset_dicts, start=1)
        for face in record["annotations"]
    ]
    found = [
        {**_annotation(number_of[name], row[:4], 0), "score": row[4]}
        for name in number_of
        for row in np.asarray(detections.get(name, []), dtype=np.float64).tolist()
    ]
    largest = max([1, *(len(rows) for rows in detections.values())])
    # Boxes with negative sides overlap nothing, and the engines fail on their negative area.
    faces = [face for face in faces if min(face["bbox"][2:]) > 0]
    precision, recall = _run_engine(faces, found, len(dataset_dicts), largest)
    figures = {
        "AP": _mean(precision[:, :, 0]),
        "AP50": _mean(precision[0, :, 0]),  # the IoUs are 0.5, 0.55, ... 0.95
        "AP75": _mean(precision[5, :, 0]),
    }
    for index, key in enumerate(HEIGHT_RANGES, start=1):
        figures[f"AP{key}"] = _mean(precision[:, :, index])
    figures["AR"] = _mean(recall[:, 0])
    return figures


def _run_engine(
    faces: list[dict[str, Any]], found: list[dict[str, Any]], num_images: int, max_detections: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision (10 IoUs, 101 recalls, all + height ranges) and recall (10, all + ranges)."""
    COCO, COCOeval = _engine()
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _index(COCO(), faces, num_images), _index(COCO(), found, num_images), "bbox"
        )
        parameters = evaluation.params
        parameters.maxDets = [max_detections]
        # The engines compare ranges with "area", which is the squared height here.
        ranges = [[low**2, high**2] for low, high in HEIGHT_RANGES.values()]
        parameters.areaRng = [[0.0, 1e10], *ranges]
        parameters.areaRngLbl = ["all", *HEIGHT_RANGES]
        evaluation.evaluate()
        evaluation.accumulate()
    seconds = time.perf_counter() - start
    logging.getLogger(__name__).info("%s took %.1f s", COCOeval.__module__, seconds)
    return (
        np.asarray(evaluation.eval["precision"])[:, :, 0, :, 0],
        np.asarray(evaluation.eval["recall"])[:, 0, :, 0],
    )


def _engine() -> tuple[Any, Any]:
    if importlib.util.find_spec("faster_coco_eval") is not None:
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    warnings.warn(
        "faster-coco-eval is not installed; pycocotools computes the same figures but takes about "
        "twenty times as long (minutes on WIDER FACE val). pip install faster-coco-eval",
        stacklevel=5,
    )
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def _index(coco: Any, annotations: list[dict[str, Any]], num_images: int) -> Any:
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    coco.dataset = {
        "images": [{"id": number} for number in range(1, num_images + 1)],
        "categories": [{"id": 1, "name": "face"}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _annotation(image: int, box: Sequence[float], iscrowd: int) -> dict[str, Any]:
    """COCO's annotation of an XYWH box; the "area" is the squared height."""
    return {
        "image_id": image,
        "category_id": 1,
        "bbox": list(box),
        "area": box[3] * box[3],
        "iscrowd": iscrowd,
    }


def _mean(values: NDArray[np.float64]) -> float:
    values = values[values > -1]  # in COCO, -1 means that no face is in the range
    return float(values.mean() * 100) if values.size else float("nan")
