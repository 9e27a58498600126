"""``tools/benchmark.py``, ``face-d2-benchmark``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from face_d2.plugins import import_detectors

import_detectors()

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from tqdm import tqdm  # noqa: E402

from face_d2.benchmark.report import markdown, plot_efficiency, plot_times  # noqa: E402
from face_d2.benchmark.routes import (  # noqa: E402
    Route,
    file_routes,
    foreign_routes,
    torch_routes,
)
from face_d2.benchmark.timing import (  # noqa: E402
    Timing,
    convolution_peak,
    interleaved,
    reason,
)
from face_d2.engine.cost import count_flops  # noqa: E402
from face_d2.files import replaced_file  # noqa: E402
from face_d2.modeling.base import OneStageDetector  # noqa: E402
from face_d2.predictor.api import FaceDetector  # noqa: E402
from face_d2.predictor.images import load_image  # noqa: E402
from face_d2.predictor.resize import SizeRule  # noqa: E402
from face_d2.predictor.sources import find_sources  # noqa: E402
from face_d2.predictor.torch_backend import build_detector, detector_node, load_config  # noqa: E402

__all__ = ["main", "parser"]

#: The sizes of LFFD's paper, width x height.
SIZES = ("160x120", "320x240", "640x480", "1280x720", "1920x1080", "3840x2160")
_WARM_UP = 2
#: Without weights nothing scores so much: suppression has nothing to do.
_UNTRAINED_THRESHOLD = 0.999


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="face-d2-benchmark",
        description="Parameters, operations, file sizes and times of a detector in every runtime "
        "that is installed, at the sizes of LFFD's paper; images are searched as they are.",
    )
    result.add_argument("--config-file", required=True, metavar="FILE", help="or a shipped name")
    result.add_argument(
        "--weights",
        metavar="FILE",
        help="without them, random ones: the network costs the same, and there is no face to "
        "suppress in the time end to end",
    )
    result.add_argument(
        "--sizes", nargs="+", type=_size, default=[_size(s) for s in SIZES], metavar="WxH"
    )
    result.add_argument("--threads", type=int, default=len(_cores()), help="default: %(default)s")
    result.add_argument("--rounds", type=int, default=15, help="timings (default: %(default)s)")
    result.add_argument(
        "--max-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="of one size, after which no round but the first three begins (default: %(default)s)",
    )
    result.add_argument(
        "--devices",
        nargs="+",
        choices=("cpu", "cuda"),
        default=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"],
        help="for PyTorch (default: what there is)",
    )
    result.add_argument(
        "--only", nargs="+", metavar="WORD", help="rows whose name has one of these words"
    )
    result.add_argument(
        "--image", metavar="FILE", help="timed on it, scaled to each size; otherwise on noise"
    )
    result.add_argument(
        "--calibration",
        metavar="FOLDER",
        help="images for int8's value ranges; otherwise noise, which says nothing of accuracy",
    )
    result.add_argument(
        "--onnx",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="other detectors' files beside it, the network alone",
    )
    result.add_argument("--output", type=Path, default=Path("output/benchmark"), metavar="DIR")
    result.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="overrides of the config"
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit status."""
    options = parser().parse_args(argv)
    try:
        foreign = dict(_named_file(word) for word in options.onnx)
        if min(options.threads, options.rounds) < 1:
            raise ValueError("--threads and --rounds must be at least 1")
        torch.set_num_threads(options.threads)
        with tempfile.TemporaryDirectory(prefix="face-d2-benchmark-") as folder:
            result = _measure(options, foreign, Path(folder))
        options.output.mkdir(parents=True, exist_ok=True)
        name = result["detector"]["config"]
        text = markdown(result)
        for suffix, content in ((".json", json.dumps(result, indent=1) + "\n"), (".md", text)):
            with replaced_file(options.output / f"{name}{suffix}") as temporary:
                temporary.write_text(content, encoding="utf-8")
        plot_times(result, options.output / f"{name}_times")
        plot_efficiency(result, options.output / f"{name}_e_net")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    print(f"{options.output}: {name}.json, {name}.md and figures")
    return 0


def _measure(
    options: argparse.Namespace, foreign: Mapping[str, Path], folder: Path
) -> dict[str, Any]:
    picture = load_image(options.image) if options.image else None
    images = _calibration_images(options.calibration, folder)
    cfg = load_config(options.config_file, options.opts)
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TEST = 0
    if not options.weights:
        detector_node(cfg).SCORE_THRESH_TEST = _UNTRAINED_THRESHOLD
        cfg.MODEL.TIMM.WEIGHTS = ""  # times need none
    model = build_detector(cfg, options.weights) if options.weights else build_model(cfg).eval()
    name = Path(options.config_file).stem
    threshold = None if options.weights else _UNTRAINED_THRESHOLD
    in_torch = list(torch_routes(model, cfg, options.devices))

    def routes_with(files: Mapping[str, Path | str]) -> list[Route]:
        routes = [*in_torch, *file_routes(files, options.threads, threshold)]
        for own_name, path in foreign.items():
            routes.extend(foreign_routes(own_name, path, options.threads))
        return _wanted(routes, options.only)

    routes_with(dict.fromkeys(("fp32", "int8"), "to be exported"))  # a wrong --only ends here
    files = _files(model, name, images, folder)
    routes = routes_with(files)
    peaks = dict(_peaks(routes))
    gflops = {
        size: count_flops(model, (height, width))[""] / 1e9 for size, height, width in options.sizes
    }
    rows: list[dict[str, Any]] = [
        {"name": r.name, "precision": r.precision, "device": r.device, "sizes": {}} for r in routes
    ]
    with tqdm(total=len(options.sizes) * (options.rounds + _WARM_UP), unit="round") as bar:
        for number, (size, height, width) in enumerate(options.sizes, start=1):
            bar.set_description(size)
            cells = _cells(routes, _image(picture, height, width), options, bar)
            bar.update(number * (options.rounds + _WARM_UP) - bar.n)  # rounds that were cut off
            for row, route, cell in zip(rows, routes, cells):
                if route.own and "median" in cell.get("network", {}):
                    cell["e_net"] = gflops[size] / cell["network"]["median"]
                    peak = peaks.get(f"{route.precision} on {route.device}")
                    if peak:
                        cell["share_of_peak"] = 1000 * cell["e_net"] / peak
                row["sizes"][size] = cell
    megabytes = {
        precision: file.stat().st_size / 1e6
        for precision, file in files.items()
        if isinstance(file, Path)
    }
    return {
        "detector": {
            "config": name,
            "parameters": sum(p.numel() for p in model.parameters()),
            "gflops": gflops,
            "megabytes": megabytes,
        },
        "machine": _machine(options),
        "rounds": options.rounds,
        "weights": "Trained weights." if options.weights else "Random weights, no face found.",
        "sizes": [size for size, *_ in options.sizes],
        "peaks": peaks,
        "rows": rows,
    }


def _wanted(routes: list[Route], only: Sequence[str] | None) -> list[Route]:
    """The routes whose names have one of the words of --only."""
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
    options: argparse.Namespace,
    bar: tqdm,
) -> list[dict[str, Any]]:
    """Timings of one image, a mapping per route."""
    functions, cells = {}, [dict[str, Any]() for _ in routes]
    for index, route in enumerate(routes):
        try:
            prepared = route.prepare(image)
        except Exception as error:  # this runtime cannot; the others go on
            cells[index]["network"] = {"error": reason(error)}
            continue
        functions.update({(index, what): function for what, function in prepared.items()})
    timings = interleaved(
        functions,
        rounds=options.rounds,
        warm_up=_WARM_UP,
        max_seconds=options.max_seconds,
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
    """The exported files by precision, or why there are none."""
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
        images = [Path(s.file) for s in find_sources([folder], None) if s.kind == "image"]
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


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    packages = ("torch", "onnxruntime", "openvino")
    versions = [f"{name} {version}" for name in packages if (version := _version(name))]
    return {
        "processor": _processor(),
        "threads": options.threads,
        "cores_allowed": len(_cores()),
        "load": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if "cuda" in options.devices else "",
        "versions": ", ".join(versions),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> list[int]:
    """Those this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _size(word: str) -> tuple[str, int, int]:
    """ "640x480" as itself, height and width."""
    width, cross, height = word.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, such as 640x480, not {word!r}")
    return word, int(height), int(width)


def _named_file(word: str) -> tuple[str, Path]:
    name, equals, file = word.partition("=")
    if not equals or not name:
        raise ValueError(f"--onnx {word}: expected NAME=FILE")
    if not Path(file).is_file():
        raise FileNotFoundError(f"--onnx {word}: no such file")
    return name, Path(file)


if __name__ == "__main__":
    sys.exit(main())
