"""Evaluation of face detectors: WIDER FACE, FDDB and COCO style.

The protocols are functions that load neither torch nor Detectron2. The evaluators for Detectron2
are imported on first access.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from face_d2.evaluation.coco import FaceCOCOEvaluator as FaceCOCOEvaluator
    from face_d2.evaluation.evaluators import FDDBEvaluator as FDDBEvaluator
    from face_d2.evaluation.evaluators import WiderFaceEvaluator as WiderFaceEvaluator
    from face_d2.evaluation.evaluators import build_evaluator as build_evaluator
    from face_d2.evaluation.fddb.protocol import fddb_roc as fddb_roc
    from face_d2.evaluation.shards import DetectionShards as DetectionShards
    from face_d2.evaluation.wider_face.files import read_predictions as read_predictions
    from face_d2.evaluation.wider_face.files import write_archive as write_archive
    from face_d2.evaluation.wider_face.files import write_predictions as write_predictions
    from face_d2.evaluation.wider_face.ground_truth import (
        WiderFaceGroundTruth as WiderFaceGroundTruth,
    )
    from face_d2.evaluation.wider_face.ground_truth import read_ground_truth as read_ground_truth
    from face_d2.evaluation.wider_face.protocol import WiderFaceResult as WiderFaceResult
    from face_d2.evaluation.wider_face.protocol import widerface_ap as widerface_ap

_LAZY = {
    "DetectionShards": "shards",
    "FDDBEvaluator": "evaluators",
    "FaceCOCOEvaluator": "coco",
    "WiderFaceEvaluator": "evaluators",
    "WiderFaceGroundTruth": "wider_face.ground_truth",
    "WiderFaceResult": "wider_face.protocol",
    "build_evaluator": "evaluators",
    "fddb_roc": "fddb.protocol",
    "read_ground_truth": "wider_face.ground_truth",
    "read_predictions": "wider_face.files",
    "widerface_ap": "wider_face.protocol",
    "write_archive": "wider_face.files",
    "write_predictions": "wider_face.files",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
