"""The whole comparison: detections, measures and costs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from face_d2.analysis.compare.cost import machine, measure_memory, measure_times
from face_d2.analysis.compare.data import ImageSet
from face_d2.analysis.compare.measures import Measured, MeasureSettings, differences, measure
from face_d2.analysis.compare.opening import DetectorChoice, open_detector
from face_d2.analysis.compare.pictures import describe_pictures
from face_d2.analysis.compare.published import published_rows
from face_d2.analysis.compare.run import run_detector
from face_d2.detectors import Detections, Detector
from face_d2.evaluation.fddb.protocol import fddb_report, fddb_roc
from face_d2.utils.files import write_text

__all__ = ["CompareSettings", "compare", "fddb_rows"]

#: Version of results.json.
_FORMAT = 1


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison.

    Attributes:
        measures: settings of the measures.
        processes: number of processes that run a detector at the same time.
        threads: number of threads of each process.
        timing_images: number of images for timing; 0 measures no times.
        timing_rounds: number of timing rounds.
        timing_threads: the numbers of threads for timing.
        pictures: number of photographs on the page.
        link_images: link photographs instead of embedding thumbnails in the page.
    """

    measures: MeasureSettings = field(default_factory=MeasureSettings)
    processes: int = 1
    threads: int = 1
    timing_images: int = 8
    timing_rounds: int = 3
    timing_threads: tuple[int, ...] = (1, 2)
    pictures: int = 24
    link_images: bool = False


def compare(
    specs: Sequence[DetectorChoice],
    image_sets: Sequence[ImageSet],
    output: str | Path,
    settings: CompareSettings,
    *,
    cache: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Compares detectors on each set of images.

    The main table is for the first set. ``output`` is the folder of the page, for links to images,
    and ``cache`` the folder of the runs, by default ``runs`` in ``output``.

    Returns:
        The content of ``results.json``: ``detectors`` (name -> metrics on the first set), ``data``
        (set -> its detectors, differences, protocol, pictures), ``published``, ``machine``.

    Raises:
        ValueError: two detectors or two sets have the same name, or there is none.
    """
    _check_names("detector", [spec.name for spec in specs])
    _check_names("data set", [images.name for images in image_sets])
    cache = Path(output) / "runs" if cache is None else Path(cache)
    about = {spec.name: _about(spec) for spec in specs}  # reports a wrong file before any run
    data = {}
    for images in image_sets:
        found = {
            spec.name: run_detector(
                spec,
                images,
                cache,
                processes=settings.processes,
                threads=settings.threads,
                progress=progress,
            )
            for spec in specs
        }
        data[images.name] = _one_set(images, found, about, Path(output), settings)
    costs = _costs(specs, image_sets[0], settings, cache, progress)
    first = data[image_sets[0].name]
    for result in data.values():
        for name, metrics in result["detectors"].items():
            metrics["cost"] = costs.get(name, {})
    return {
        "format": _FORMAT,
        "detectors": first["detectors"],
        "data": data,
        "published": published_rows(),
        "machine": machine(),
        "settings": asdict(settings.measures),
    }


def fddb_rows(images: ImageSet, found: Mapping[str, Detections]) -> dict[str, list[list[float]]]:
    """FDDB's rows "x y w h score" by FDDB's image names."""
    assert images.image_root is not None
    rows = {}
    for name, (boxes, scores) in found.items():
        file = images.files[name].relative_to(images.image_root).with_suffix("").as_posix()
        rows[file] = [
            [x1, y1, x2 - x1, y2 - y1, score]
            for (x1, y1, x2, y2), score in zip(boxes.tolist(), scores.tolist())
        ]
    return rows


def _one_set(
    images: ImageSet,
    found: Mapping[str, Mapping[str, Detections]],
    about: Mapping[str, Mapping[str, Any]],
    output: Path,
    settings: CompareSettings,
) -> dict[str, Any]:
    measured: dict[str, Measured] = {}
    truth = images.ground_truth
    ground_truth = {"ground truth": truth.source, "images": truth.images}
    for name, detections in found.items():
        with warnings.catch_warnings():  # equal scores: the page shows the single point
            warnings.simplefilter("ignore", UserWarning)
            measured[name] = measure(detections, truth, settings.measures)
        metrics = measured[name].metrics
        metrics.update(about[name])
        metrics["protocol"] = {**about[name]["protocol"], **ground_truth}
        if images.fddb_folds is not None:
            roc = fddb_roc(
                fddb_rows(images, detections), images.fddb_folds, image_root=images.image_root
            )
            metrics["fddb"] = fddb_report(roc, {})
    chosen = settings.measures
    return {
        "detectors": {name: one.metrics for name, one in measured.items()},
        "differences": differences(measured),
        "protocol": {
            **ground_truth,
            "score": "official WIDER FACE AP, IoU 0.5; intervals and differences: "
            f"{chosen.bootstrap} resamplings of the images, paired, seed {chosen.seed}",
            "operating points and errors": f"{chosen.setting} faces",
        },
        "pictures": describe_pictures(
            images,
            found,
            measured,
            chosen.setting,
            chosen.threshold,
            settings.pictures,
            output if settings.link_images else None,
        ),
    }


def _about(spec: DetectorChoice) -> dict[str, Any]:
    detector = open_detector(spec, 1)
    facts: dict[str, Any] = {"protocol": detector.protocol, "adapter": detector.adapter}
    if isinstance(detector, Detector):
        facts |= {
            "parameters": detector.parameters,
            "file_bytes": detector.file_bytes,
            "source": detector.about.source,
            "license": detector.about.license,
            "protocol_source": detector.about.protocol_source,
        }
    return facts


def _costs(
    specs: Sequence[DetectorChoice],
    images: ImageSet,
    settings: CompareSettings,
    cache: Path,
    progress: bool,
) -> dict[str, dict[str, Any]]:
    """Times and memory; stored beside the runs, so that a repeated comparison shows the same
    values."""
    if not settings.timing_images:
        return {}
    step = max(1, len(images.files) // settings.timing_images)
    names = list(images.files)[::step][: settings.timing_images]
    asked = {
        "machine": machine(),
        "detectors": [[spec.name, dict(open_detector(spec, 1).fingerprint)] for spec in specs],
        "images": names,
        "rounds": settings.timing_rounds,
        "threads": list(settings.timing_threads),
    }
    kept = cache / "costs.json"
    if kept.is_file():
        try:
            known = json.loads(kept.read_text(encoding="utf-8"))
        except ValueError:
            known = {}
        if known.get("asked") == json.loads(json.dumps(asked)):
            return known["costs"]
    files = [images.files[name] for name in names]
    costs: dict[str, dict[str, Any]] = {spec.name: {} for spec in specs}
    for threads in settings.timing_threads:
        times = measure_times(
            specs, files, threads=threads, rounds=settings.timing_rounds, progress=progress
        )
        for name, timing in times.items():
            costs[name][f"threads_{threads}"] = timing
    for spec in specs:
        costs[spec.name]["peak_memory_mib"] = measure_memory(spec, files[:3])
        costs[spec.name]["images"] = len(files)
    write_text(json.dumps({"asked": asked, "costs": costs}), kept)
    return costs


def _check_names(kind: str, names: Sequence[str]) -> None:
    if not names:
        raise ValueError(f"there is no {kind}; name at least one")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(
            f"two {kind}s are called {sorted(twice)[0]!r}; give one another name, as in "
            "OTHER=ADAPTER:FILE"
        )
