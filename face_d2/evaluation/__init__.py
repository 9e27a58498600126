"""Evaluation of face detectors: WIDER FACE, FDDB and COCO style.

The protocols are functions that need neither torch nor Detectron2 in the process; the evaluators
that run inside Detectron2 import them when first touched.
"""

from __future__ import annotations

_LAZY = {
    "DetectionShards": "shards",
    "FDDBEvaluator": "evaluators",
    "FaceCOCOEvaluator": "coco",
    "WiderFaceEvaluator": "evaluators",
    "WiderFaceGroundTruth": "wider_face_ground_truth",
    "WiderFaceResult": "wider_face",
    "build_evaluator": "evaluators",
    "detection_sheet": "sheets",
    "fddb_roc": "fddb",
    "read_ground_truth": "wider_face_ground_truth",
    "read_predictions": "wider_face_files",
    "widerface_ap": "wider_face",
    "write_archive": "wider_face_files",
    "write_predictions": "wider_face_files",
}

__all__ = list(_LAZY)


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
