"""Runs an exported file with ONNX Runtime or OpenVINO, and NMS with NumPy."""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.nms import select
from face_d2.ops.spec import DetectorSpec
from face_d2.predictor.int8_probe import int8_sums_saturate
from face_d2.predictor.results import RawDetections
from face_d2.predictor.runtimes import RUNTIMES, Graph, open_graph
from face_d2.utils.known_mistake import known_mistake

__all__ = ["OnnxBackend"]


class OnnxBackend:
    """Runs a file of ``face-d2-export``; see :class:`face_d2.predictor.api.Backend`.

    The arguments are those of :meth:`face_d2.FaceDetector.from_onnx`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the runtime is not installed.
        ValueError: ``runtime`` is unknown, or the file was not exported by this project.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        runtime: str = "auto",
        score_threshold: float | None = None,
        threads: int | None = None,
    ) -> None:
        self._arguments = (path, runtime, score_threshold, threads)
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        chosen = _chosen(runtime)
        try:
            graph = open_graph(path, chosen, threads or 0)
        except ImportError:
            raise
        except Exception as error:  # each runtime has its own exceptions
            reason = known_mistake(path) or error
            raise ValueError(f"{path}: cannot be loaded as an ONNX model ({reason})") from error
        self.graph = graph
        self.spec = DetectorSpec.from_metadata(graph.metadata, str(path))
        self.runtime = f"{graph.runtime}, {graph.metadata.get('precision', 'float32')}"
        if self.spec.outputs != "candidates":
            raise ValueError(
                f"{path}: its outputs are {self.spec.outputs!r}; FaceDetector needs a file "
                "exported with --outputs candidates"
            )
        _warn_if_int8_overflows(path, graph, chosen)
        # OpenVINO cannot pool a map of one row or column, which DF2S2 does in images of at most
        # half its largest stride (64 pixels). Such an image may get the outputs of the image before
        # it, or an error, after which the next images may get wrong outputs (seen in OpenVINO
        # 2026.4).
        largest = max(level.stride for level in self.spec.levels)
        self._small = largest // 2 if chosen == "openvino" else 0
        if score_threshold is not None:
            settings = replace(self.spec.suppression, score_threshold=score_threshold)
            self.spec = replace(self.spec, suppression=settings)

    def __reduce__(self) -> tuple[type[OnnxBackend], tuple[Any, ...]]:
        """Pickles the arguments, so that another process loads the file itself."""
        return OnnxBackend, self._arguments

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[RawDetections]:
        """Runs images one by one, because batches are not faster on a CPU."""
        return [self._detect_one(image) for image in images]

    def _detect_one(self, image: NDArray[np.uint8]) -> RawDetections:
        if min(image.shape[:2]) < self.spec.min_image_side:
            return RawDetections.empty()
        boxes, scores, levels = self._run(np.ascontiguousarray(image[None]))
        chosen = select(boxes[0], scores[0], levels, self.spec.suppression)
        return RawDetections(boxes[0, chosen], scores[0, chosen], levels[chosen])

    def _run(self, images: NDArray[np.uint8]) -> Sequence[NDArray[Any]]:
        """The outputs of the file; ONNX Runtime runs images that are too small for OpenVINO."""
        small = min(images.shape[1:3]) <= self._small
        return (self._for_small_images if small else self.graph).run(images)

    @functools.cached_property
    def _for_small_images(self) -> Graph:
        path, _, _, threads = self._arguments
        return open_graph(path, "onnxruntime", threads or 0)


def _warn_if_int8_overflows(path: str | os.PathLike[str], graph: Graph, runtime: str) -> None:
    """Warns about 8-bit weights; files without an entry for the bits have such weights."""
    if graph.metadata.get("precision") != "int8" or graph.metadata.get("weight_bits") == "7":
        return
    if int8_sums_saturate(runtime):
        warnings.warn(
            f"{path}: its int8 weights have 8 bits, which give wrong results on this processor: "
            f"{runtime} sums int8 products in 16 bits here, which overflow. Export it again "
            "without --int8-weights 8 (weights then have 7 bits), or use the float file",
            RuntimeWarning,
            stacklevel=4,
        )


def _chosen(runtime: str) -> str:
    if runtime not in ("auto", *RUNTIMES):
        raise ValueError(f'runtime is {runtime!r}; expected "auto" or one of {list(RUNTIMES)}')
    wanted = RUNTIMES if runtime == "auto" else (runtime,)
    for name in wanted:
        if importlib.util.find_spec(name) is not None:
            return name
    extra = "openvino" if runtime == "openvino" else "onnx"
    raise ImportError(
        f"{' or '.join(wanted)} is not installed: pip install '{wanted[-1]}', or install this "
        f"project with the extra [{extra}]"
    )
