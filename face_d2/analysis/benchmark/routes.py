"""The ways to run a detector: PyTorch in several modes, exported files in several runtimes."""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray

from face_d2.analysis.benchmark.timing import reason
from face_d2.modeling.base import OneStageDetector
from face_d2.predictor.api import FaceDetector
from face_d2.predictor.onnx_backend import OnnxBackend
from face_d2.predictor.runtimes import RUNTIMES, open_graph
from face_d2.predictor.torch_backend import TorchBackend

__all__ = ["Route", "file_routes", "foreign_routes", "torch_routes"]

#: Maps an image (H, W, 3) uint8 to the functions to time: "network" and, if possible, "end to end".
Prepare: TypeAlias = "Callable[[NDArray[np.uint8]], Mapping[str, Callable[[], Any]]]"

NETWORK, END_TO_END = "network", "end to end"
_TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Route:
    """A detector in one runtime.

    Attributes:
        name: name in the tables.
        precision: "fp32", "bf16" or "int8"; "" if not known.
        device: "cpu" or "cuda".
        prepare: returns the functions to time on an image; it may raise.
        own: whether it is the detector of the config, whose operations are counted.
    """

    name: str
    precision: str
    device: str
    prepare: Prepare
    own: bool = True


def torch_routes(model: OneStageDetector, cfg: CfgNode, devices: Sequence[str]) -> Iterator[Route]:
    """A detector, given on the CPU in evaluation mode, in PyTorch on "cpu" or "cuda"."""
    for device in devices:
        where = "" if device == "cpu" else f" on {device}"
        nchw = copy.deepcopy(model).to(device)
        nhwc = copy.deepcopy(model).to(device, memory_format=torch.channels_last)
        yield _torch_route(f"PyTorch fp32{where}", "fp32", nchw, cfg)
        yield _torch_route(f"PyTorch fp32 channels-last{where}", "fp32", nhwc, cfg)
        yield _torch_route(f"PyTorch bf16 channels-last{where}", "bf16", nhwc, cfg)
        compiled = copy.deepcopy(nhwc)
        compiled.forward_maps = torch.compile(compiled.forward_maps)
        yield _torch_route(f"PyTorch fp32 compiled{where}", "fp32", compiled, cfg)


def _torch_route(name: str, precision: str, model: OneStageDetector, cfg: CfgNode) -> Route:
    detector = FaceDetector(TorchBackend(model, cfg), max_pixels=2**40)

    def prepare(image: NDArray[np.uint8]) -> dict[str, Callable[[], Any]]:
        tensor = torch.from_numpy(image).permute(2, 0, 1)
        batch = model.preprocess_image([{"image": tensor}]).tensor

        def finished(function: Callable[[], Any]) -> None:
            bf16 = torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16")
            with torch.inference_mode(), bf16:
                function()
            if model.device.type != "cpu":
                torch.cuda.synchronize()

        return {
            NETWORK: partial(finished, lambda: model.forward_maps(batch)),
            END_TO_END: partial(finished, lambda: detector.detect(image)),
        }

    return Route(name, precision, model.device.type, prepare)


def file_routes(
    files: Mapping[str, Path | str], threads: int, score_threshold: float | None
) -> Iterator[Route]:
    """The detector's exported files in every runtime.

    Args:
        files: precision ("fp32", "int8") -> a file of ``tools/export_onnx.py``, or the reason why
            there is none.
        threads: number of CPU threads.
        score_threshold: replaces the threshold in the files.
    """
    for precision, file in files.items():
        for runtime in reversed(RUNTIMES):
            prepare = (
                partial(_raise, file)
                if isinstance(file, str)
                else _lazily(partial(_prepare_file, file, runtime, threads, score_threshold))
            )
            yield Route(f"{_TITLES[runtime]} {precision}", precision, "cpu", prepare)


def foreign_routes(name: str, file: Path, threads: int) -> Iterator[Route]:
    """The network in the ONNX file of another detector.

    The file has one image input, (N, 3, H, W) or (N, H, W, 3), of free or fixed size.
    """
    for runtime in reversed(RUNTIMES):
        prepare = _lazily(partial(_prepare_foreign, file, runtime, threads))
        yield Route(f"{name}, {_TITLES[runtime]}", "", "cpu", prepare, own=False)


def _raise(why: str, image: NDArray[np.uint8]) -> dict[str, Callable[[], Any]]:
    raise RuntimeError(why)


def _lazily(start: Callable[[], Prepare]) -> Prepare:
    """Starts a runtime at the first call and keeps it; a failure is kept too."""

    @cache
    def started() -> Prepare:
        try:
            return start()
        except Exception as error:  # every runtime has its own errors
            return partial(_raise, reason(error))

    return lambda image: started()(image)


def _prepare_file(file: Path, runtime: str, threads: int, score_threshold: float | None) -> Prepare:
    detector = FaceDetector.from_onnx(
        file,
        runtime=runtime,
        threads=threads,
        score_threshold=score_threshold,
        max_pixels=2**40,
    )
    backend = cast(OnnxBackend, detector.backend)

    def prepare(image: NDArray[np.uint8]) -> dict[str, Callable[[], Any]]:
        return {
            NETWORK: partial(backend.graph.run, image[None]),
            END_TO_END: partial(detector.detect, image),
        }

    return prepare


def _prepare_foreign(file: Path, runtime: str, threads: int) -> Prepare:
    graph = open_graph(file, runtime, threads)
    shape = graph.shape
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise ValueError(f"{file}: its input {shape} is no image: (N, 3, H, W) or (N, H, W, 3)")
    first = shape[1] == 3

    def prepare(image: NDArray[np.uint8]) -> dict[str, Callable[[], Any]]:
        fixed = shape[2:] if first else shape[1:3]
        if any(own not in (None, side) for own, side in zip(fixed, image.shape)):
            raise ValueError(f"made for {fixed[1]} x {fixed[0]} alone")
        images = (image.transpose(2, 0, 1) if first else image)[None]
        return {NETWORK: partial(graph.run, np.ascontiguousarray(images, graph.dtype))}

    return prepare
