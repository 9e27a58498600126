"""Measures the time of a detector in every runtime for every image size."""

from __future__ import annotations

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.modeling import build_model
from numpy.typing import NDArray
from tqdm import tqdm

from face_d2.analysis.benchmark.routes import Route, file_routes, foreign_routes, torch_routes
from face_d2.analysis.benchmark.timing import Timing, convolution_peak, interleaved, reason
from face_d2.analysis.cost import count_flops
from face_d2.config import load_config
from face_d2.modeling.base import OneStageDetector
from face_d2.ops.resize import SizeRule
from face_d2.predictor.api import FaceDetector
from face_d2.predictor.images import load_image
from face_d2.predictor.sources import find_inputs
from face_d2.predictor.torch_backend import build_detector, detector_node
from face_d2.utils.processor import processor_name, usable_cores

__all__ = ["BenchmarkSettings", "measure"]

_WARM_UP = 2
#: Without weights, no score is above this, so NMS has no candidates.
_UNTRAINED_THRESHOLD = 0.999


@dataclass(frozen=True)
class BenchmarkSettings:
    """Settings of a measurement.

    Attributes:
        config_file: a path, or the name of a shipped config.
        weights: a checkpoint; None for random weights.
        opts: KEY, VALUE, ... that override the config.
        sizes: name, height and width of every image size.
        threads: number of CPU threads.
        rounds: number of timings of every function.
        max_seconds: time limit per image size, after which no round starts, except the first three.
        devices: devices for PyTorch, "cpu" and "cuda".
        only: words; only rows with one of them in their name are measured. None measures all.
        image: an image file; None for noise.
        calibration: a folder of images for the value ranges of int8; None for noise.
        foreign: name -> ONNX file of another detector.
    """

    config_file: str
    weights: str | None
    opts: Sequence[str]
    sizes: Sequence[tuple[str, int, int]]
    threads: int
    rounds: int
    max_seconds: float
    devices: Sequence[str]
    only: Sequence[str] | None = None
    image: str | None = None
    calibration: str | None = None
    foreign: Mapping[str, Path] = field(default_factory=dict)


def measure(settings: BenchmarkSettings) -> dict[str, Any]:
    """Runs the measurement; exported files are written to a temporary folder.

    Returns:
        All figures as JSON data, which :mod:`face_d2.analysis.benchmark.report` reads.

    Raises:
        ValueError, OSError: a setting is wrong, or a file is missing.
    """
    torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory(prefix="face-d2-benchmark-") as folder:
        return _measure(settings, Path(folder))


def _measure(settings: BenchmarkSettings, folder: Path) -> dict[str, Any]:
    picture = load_image(settings.image) if settings.image else None
    images = _calibration_images(settings.calibration, folder)
    cfg = load_config(settings.config_file, settings.opts)
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TEST = 0
    if not settings.weights:
        detector_node(cfg).SCORE_THRESH_TEST = _UNTRAINED_THRESHOLD
        cfg.MODEL.TIMM.WEIGHTS = ""  # times do not need weights
    model = build_detector(cfg, settings.weights) if settings.weights else build_model(cfg).eval()
    name = Path(settings.config_file).stem
    threshold = None if settings.weights else _UNTRAINED_THRESHOLD
    in_torch = list(torch_routes(model, cfg, settings.devices))

    def routes_with(files: Mapping[str, Path | str]) -> list[Route]:
        routes = [*in_torch, *file_routes(files, settings.threads, threshold)]
        for own_name, path in settings.foreign.items():
            routes.extend(foreign_routes(own_name, path, settings.threads))
        return _wanted(routes, settings.only)

    routes_with(dict.fromkeys(("fp32", "int8"), "to be exported"))  # reports a wrong --only
    files = _files(model, name, images, folder)
    routes = routes_with(files)
    peaks = dict(_peaks(routes))
    gflops = {
        size: count_flops(model, (height, width))[""] / 1e9
        for size, height, width in settings.sizes
    }
    rows: list[dict[str, Any]] = [
        {"name": r.name, "precision": r.precision, "device": r.device, "sizes": {}} for r in routes
    ]
    with tqdm(total=len(settings.sizes) * (settings.rounds + _WARM_UP), unit="round") as bar:
        for number, (size, height, width) in enumerate(settings.sizes, start=1):
            bar.set_description(size)
            cells = _cells(routes, _image(picture, height, width), settings, bar)
            bar.update(number * (settings.rounds + _WARM_UP) - bar.n)  # rounds that were left out
            for row, route, cell in zip(rows, routes, cells):
                if route.own and "median" in cell.get("network", {}):
                    cell["e_net"] = gflops[size] / cell["network"]["median"]
                    peak = peaks.get(f"{route.precision} on {route.device}")
                    if peak:
                        cell["share_of_peak"] = 1000 * cell["e_net"] / peak
                row["sizes"][size] = cell
    return {
        "detector": {
            "config": name,
            "parameters": sum(p.numel() for p in model.parameters()),
            "gflops": gflops,
            "megabytes": {
                precision: file.stat().st_size / 1e6
                for precision, file in files.items()
                if isinstance(file, Path)
            },
        },
        "machine": _machine(settings),
        "rounds": settings.rounds,
        "weights": "Trained weights." if settings.weights else "Random weights, no face found.",
        "sizes": [size for size, *_ in settings.sizes],
        "peaks": peaks,
        "rows": rows,
    }


def _wanted(routes: list[Route], only: Sequence[str] | None) -> list[Route]:
    """The routes whose names contain one of the words of --only."""
    if not only:
        return routes
    words = [word.lower() for word in only]
    wanted = [route for route in routes if any(word in route.name.lower() for word in words)]
    if not wanted:
        names = ", ".join(route.name for route in routes)
        raise ValueError(f"--only {' '.join(only)}: no row has such a name; there are: {names}")
    return wanted


def _cells(
    routes: Sequence[Route],
    image: NDArray[np.uint8],
    settings: BenchmarkSettings,
    bar: tqdm,
) -> list[dict[str, Any]]:
    """Timings for one image, one mapping per route."""
    functions, cells = {}, [dict[str, Any]() for _ in routes]
    for index, route in enumerate(routes):
        try:
            prepared = route.prepare(image)
        except Exception as error:  # only this runtime fails
            cells[index]["network"] = {"error": reason(error)}
            continue
        functions.update({(index, what): function for what, function in prepared.items()})
    timings = interleaved(
        functions,
        rounds=settings.rounds,
        warm_up=_WARM_UP,
        max_seconds=settings.max_seconds,
        on_round=bar.update,
    )
    for (index, what), timing in timings.items():
        cells[index][what] = asdict(timing) if isinstance(timing, Timing) else {"error": timing}
    return cells


def _peaks(routes: Sequence[Route]) -> Iterator[tuple[str, float]]:
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    for precision, device in sorted({(r.precision, r.device) for r in routes}):
        if precision in dtypes:
            yield f"{precision} on {device}", convolution_peak(dtypes[precision], device)


def _files(
    model: OneStageDetector, name: str, images: Sequence[Path], folder: Path
) -> dict[str, Path | str]:
    """The exported files by precision, or the reason why there is none."""
    checkpoint = folder / "weights.pth"
    torch.save({"model": model.state_dict()}, checkpoint)
    files: dict[str, Path | str] = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}
    try:
        from face_d2.export.onnx_file import export_onnx
        from face_d2.export.quantize import write_int8
    except ModuleNotFoundError as error:
        return dict.fromkeys(files, f"{error.name} is not installed")
    try:
        export_onnx(model, files["fp32"], size_rule=SizeRule(), config=name, weights=checkpoint)
    except (ValueError, RuntimeError) as error:
        return dict.fromkeys(files, reason(error))
    detector = FaceDetector.from_onnx(files["fp32"], runtime="onnxruntime")
    try:
        write_int8(detector, files["fp32"], Path(files["int8"]), images)
    except (ValueError, RuntimeError) as error:
        files["int8"] = reason(error)
    return files


def _calibration_images(folder: str | None, temporary: Path) -> list[Path]:
    if folder:
        images = [Path(s.file) for s in find_inputs([folder]).sources if s.kind == "image"]
        if not images:
            raise ValueError(f"--calibration {folder}: no images there")
        return images
    noise = temporary / "noise.png"
    cv2.imwrite(str(noise), _image(None, 240, 320))
    return [noise]


def _image(picture: NDArray[np.uint8] | None, height: int, width: int) -> NDArray[np.uint8]:
    if picture is not None:
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    small = np.random.default_rng(0).integers(
        0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8
    )
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _machine(settings: BenchmarkSettings) -> dict[str, Any]:
    versions = []
    for package in ("torch", "onnxruntime", "openvino"):
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    return {
        "processor": processor_name(),
        "threads": settings.threads,
        "cores_allowed": usable_cores(),
        "load": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if "cuda" in settings.devices else "",
        "versions": ", ".join(versions),
    }
