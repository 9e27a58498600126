"""The adapters for ONNX files, and the recognition of files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from face_d2.detectors.centerface import CenterFace
from face_d2.detectors.onnx_detector import OnnxDetector
from face_d2.detectors.onnx_graph import OnnxGraph
from face_d2.detectors.scrfd import SCRFD
from face_d2.detectors.ssd import S3FD, FaceDetector1MB, RetinaFace, UltraLight
from face_d2.detectors.yolo import YOLOv5Face, YOLOv8Face
from face_d2.detectors.yunet import YuNet

__all__ = ["ONNX_DETECTORS", "open_onnx"]

#: To add a detector, add its class here.
ONNX_DETECTORS: Mapping[str, type[OnnxDetector]] = {
    detector.adapter: detector
    for detector in (
        YuNet,
        SCRFD,
        RetinaFace,
        YOLOv5Face,
        YOLOv8Face,
        UltraLight,
        CenterFace,
        FaceDetector1MB,
        S3FD,
    )
}


def open_onnx(
    path: str | os.PathLike[str], adapter: str = "", threads: int = 0, **options: Any
) -> OnnxDetector:
    """Opens the ONNX file of a detector.

    Args:
        path: the file.
        adapter: a key of ``ONNX_DETECTORS``; "" recognizes the file by its inputs and outputs.
        threads: number of CPU threads; 0 uses the default of the runtime.
        options: fields of :class:`Settings` that replace the defaults of the adapter.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: no adapter or several adapters fit the file, or an option is unknown or invalid.
    """
    graph = OnnxGraph(path, threads)
    detector = ONNX_DETECTORS[adapter] if adapter else _recognized(graph)
    if detector.free_size:
        graph = OnnxGraph(path, threads, free_size=True)
    return detector(graph, replace(detector.defaults, **options))


def _recognized(graph: OnnxGraph) -> type[OnnxDetector]:
    known = [one for one in ONNX_DETECTORS.values() if one.recognizes(graph.signature)]
    if len(known) == 1:
        return known[0]
    which = " and ".join(one.adapter for one in known) or "no adapter"
    raise ValueError(
        f"{graph.path}: {which} know{'' if len(known) > 1 else 's'} a file with "
        f"{graph.signature}; name the adapter, as in yunet:{graph.path.name}. Adapters are "
        f"{', '.join(ONNX_DETECTORS)}"
    )
