"""Evaluation of face detectors: WIDER FACE, FDDB and COCO style.

The protocols are functions that load neither torch nor Detectron2. The evaluators for Detectron2
are imported on first access.
"""

from __future__ import annotations

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
