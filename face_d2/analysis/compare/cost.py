"""Time and memory of detectors on this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from face_d2.analysis.compare.opening import DetectorChoice, open_detector
from face_d2.data.image_file import read_image
from face_d2.detectors import Detector
from face_d2.utils.processor import peak_memory, processor_name

__all__ = ["machine", "measure_memory", "measure_times"]

logger = logging.getLogger(__name__)


def measure_times(
    specs: Sequence[DetectorChoice],
    files: Sequence[Path],
    *,
    threads: int,
    rounds: int = 3,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Interleaved timings of detectors in milliseconds per image, from pixels to boxes.

    For each image, every detector is called twice and the second call is timed, so that all
    detectors are timed under the same conditions and with their weights in the caches.

    Returns:
        name -> ``milliseconds`` (mean over the images of the median over the rounds) and
        ``quartiles`` over the images; recorded detections are left out.
    """
    opened = {spec.name: open_detector(spec, threads) for spec in specs}
    detectors = {name: one for name, one in opened.items() if isinstance(one, Detector)}
    times: dict[str, list[list[float]]] = {name: [[] for _ in files] for name in detectors}
    turns = [*range(len(files))] * rounds
    for index in tqdm(turns, desc=f"timing, {threads} threads", disable=not progress):
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


def measure_memory(spec: DetectorChoice, files: Sequence[Path]) -> float | None:
    """Peak memory of a process with one thread, in MiB, minus its memory before the detector is
    loaded.

    None for recorded detections, and, with a warning, if the process is killed.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(_peak_memory, spec, files).result()
    except BrokenProcessPool:
        logger.warning("%s: the process that measures the memory was killed.", spec.name)
        return None


def machine() -> dict[str, Any]:
    """Describes the machine on which times were measured."""
    return {"processor": processor_name(), "cores": os.cpu_count(), "system": platform.platform()}


def _peak_memory(spec: DetectorChoice, files: Sequence[Path]) -> float | None:
    images = [read_image(file) for file in files]
    before = peak_memory()
    detector = open_detector(spec, 1)
    if not isinstance(detector, Detector):
        return None
    for image in images:
        detector.detect(image)
    return max(peak_memory() - before, 0.0)
