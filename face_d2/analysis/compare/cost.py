"""Time and memory of detectors on this machine."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from face_d2.analysis.compare.opening import DetectorChoice, open_detector
from face_d2.data.image_file import read_image
from face_d2.detectors import Detector

__all__ = ["machine", "measure_memory", "measure_times"]


def measure_times(
    specs: Sequence[DetectorChoice],
    files: Sequence[Path],
    *,
    threads: int,
    rounds: int = 3,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Milliseconds an image, from pixels to boxes, of detectors that take turns.

    For each image every detector is called twice and the second call counts, so that all see the
    machine alike and have their weights at hand.

    Args:
        specs: the detectors; recorded detections are left out.
        files: images, read beforehand.
        threads: CPU threads of each detector.
        rounds: how often all images are gone through; of an image the median counts.
        progress: shows a bar.

    Returns:
        name -> ``milliseconds`` (mean over the images of the median over the rounds) and
        ``quartiles`` over the images.
    """
    opened = {spec.name: open_detector(spec, threads) for spec in specs}
    detectors = {name: one for name, one in opened.items() if isinstance(one, Detector)}
    times: dict[str, list[list[float]]] = {name: [[] for _ in files] for name in detectors}
    turns = [(turn, index) for turn in range(rounds) for index in range(len(files))]
    for _, index in tqdm(turns, desc=f"timing, {threads} threads", disable=not progress):
        image = read_image(files[index])
        for name, detector in detectors.items():
            detector.detect(image)
            start = time.perf_counter()
            detector.detect(image)
            times[name][index].append(1000 * (time.perf_counter() - start))
    summary = {}
    for name, by_image in times.items():
        medians = sorted(statistics.median(values) for values in by_image)
        quartiles = statistics.quantiles(medians, n=4) if len(medians) > 1 else medians * 3
        summary[name] = {
            "milliseconds": statistics.fmean(medians),
            "quartiles": [quartiles[0], quartiles[-1]],
        }
    return summary


def measure_memory(spec: DetectorChoice, files: Sequence[Path], threads: int) -> float | None:
    """MiB that a process of its own takes at most, beyond what it takes before the detector.

    None for recorded detections, and where the process fails.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_peak_memory, spec, list(files), threads).result()


def machine() -> dict[str, Any]:
    """What the times were taken on."""
    return {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()}


def _peak_memory(spec: DetectorChoice, files: Sequence[Path], threads: int) -> float | None:
    images = [read_image(file) for file in files]
    before = _resident()
    detector = open_detector(spec, threads)
    if not isinstance(detector, Detector):
        return None
    for image in images:
        detector.detect(image)
    return max(_resident() - before, 0.0)


def _resident() -> float:
    """The process's peak in MiB.

    Linux hands getrusage's peak on to a process that is started, so its own count is read there.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields: Mapping[str, str] = dict(
        map(str.strip, line.split(":", 1)) for line in lines if ":" in line  # type: ignore[misc]
    )
    return fields.get("model name", platform.machine())
