"""Opens detectors that are given as text, such as ``yunet:FILE``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from face_d2.analysis.compare.own_detectors import Detectron2Model, FaceD2
from face_d2.analysis.compare.recorded import RecordedDetections
from face_d2.detectors import ONNX_DETECTORS, Detector, Settings, open_onnx
from face_d2.detectors.onnx_graph import OnnxGraph
from face_d2.detectors.packages import MTCNN, HaarCascade
from face_d2.pretrained import PRETRAINED

__all__ = ["DetectorChoice", "open_detector"]

#: Key in the metadata of exported files of this project.
_OWN_KEY = "face_d2"
_SETTINGS = tuple(field.name for field in fields(Settings))
_WHOLE = ("size", "class", "min_face_size")


@dataclass(frozen=True)
class DetectorChoice:
    """A detector as given by a user: ``[NAME=][ADAPTER:]TARGET[?KEY=VALUE&KEY=VALUE]``.

    Attributes:
        name: name in tables.
        adapter: name of the adapter; "" to choose it by the target.
        target: file, folder or name.
        options: settings that differ from the adapter's.
    """

    name: str
    adapter: str
    target: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> DetectorChoice:
        """Parses the text.

        Raises:
            ValueError: an option has no value, or there is no target.
        """
        before, _, after = text.partition("?")
        options = {}
        for item in filter(None, after.split("&")):
            key, equals, value = item.partition("=")
            if not equals or not value:
                raise ValueError(f"detector {text!r}: expected KEY=VALUE after '?', found {item!r}")
            options[key] = value
        name, equals, rest = before.partition("=")
        if not equals or "/" in name or ":" in name:
            name, rest = "", before
        adapter, colon, target = rest.partition(":")
        if not colon or adapter not in _OPENERS:
            if colon and not os.path.exists(rest):
                raise ValueError(
                    f"detector {text!r}: there is no adapter {adapter!r}; adapters are "
                    f"{', '.join(_OPENERS)}"
                )
            adapter, target = (rest, "") if rest in _WITHOUT_FILE else ("", rest)
        if not target and adapter not in _WITHOUT_FILE:
            raise ValueError(f"detector {text!r}: names no file; expected ADAPTER:FILE")
        if not name:
            name = _plain_name(adapter, target, options)
        return cls(name, adapter, target, options)


def open_detector(spec: str | DetectorChoice, threads: int = 0) -> Detector | RecordedDetections:
    """Opens a detector.

    Args:
        spec: ``[NAME=][ADAPTER:]TARGET[?KEY=VALUE&...]``. Adapters are the keys of
            ``ONNX_DETECTORS`` and "face-d2" (an exported file), "config" (``CONFIG+WEIGHTS``),
            "predictions" (a folder or archive), "haar", "mtcnn". Without an adapter, a file is
            recognized by its inputs and outputs, a folder contains predictions, and anything else
            is the name of a shipped detector. Options of ONNX files are ``size``, ``score`` and
            ``nms``, see :class:`Settings`.
        threads: number of CPU threads; 0 uses the default of the runtime.

    Raises:
        FileNotFoundError: the file or name does not exist.
        ImportError: a package that the detector needs is not installed.
        ValueError: the file is of another detector, or an option is unknown or invalid.
    """
    if isinstance(spec, str):
        spec = DetectorChoice.parse(spec)
    return _OPENERS[spec.adapter or _adapter_of(spec.target)](spec, threads)


def _open_file(spec: DetectorChoice, threads: int) -> Detector:
    return open_onnx(spec.target, spec.adapter, threads, **_numbers(spec, *_SETTINGS))


def _open_any_file(spec: DetectorChoice, threads: int) -> Detector:
    if _OWN_KEY in OnnxGraph(spec.target, 1).signature.metadata:
        return _open_own(spec, threads)
    return _open_file(spec, threads)


def _open_own(spec: DetectorChoice, threads: int) -> Detector:
    return FaceD2(Path(spec.target), threads, **_numbers(spec, "score"))


def _open_config(spec: DetectorChoice, threads: int) -> Detector:
    import face_d2.needs_detectron2  # isort: skip  (says how to install what is missing)

    import torch

    config, plus, weights = spec.target.rpartition("+")
    if not plus:
        raise ValueError(f"config:{spec.target}: expected config:FILE+WEIGHTS")
    chosen = _numbers(spec, "class")
    if threads:
        torch.set_num_threads(threads)
    return Detectron2Model(config, Path(weights), chosen.get("class", 0))


def _open_shipped(spec: DetectorChoice, threads: int) -> Detector:
    if spec.target not in PRETRAINED:
        raise FileNotFoundError(
            f"{spec.target}: no such file or folder, and neither a detector that ships "
            f"({', '.join(PRETRAINED)}) nor an adapter ({', '.join(_OPENERS)})"
        )
    return _open_own(replace(spec, target=str(PRETRAINED[spec.target].onnx)), threads)


def _open_recorded(spec: DetectorChoice, threads: int) -> RecordedDetections:
    _check_options(spec)
    return RecordedDetections(spec.target)


def _open_haar(spec: DetectorChoice, threads: int) -> Detector:
    import cv2

    _check_options(spec)
    if threads:
        cv2.setNumThreads(threads)
    return HaarCascade(spec.target or None)


def _open_mtcnn(spec: DetectorChoice, threads: int) -> Detector:
    chosen = _numbers(spec, "min_face_size")
    if threads:
        import torch

        torch.set_num_threads(threads)
    return MTCNN(**chosen)


_WITHOUT_FILE = ("haar", "mtcnn")
_OPENERS: Mapping[str, Callable[[DetectorChoice, int], Detector | RecordedDetections]] = {
    **dict.fromkeys(ONNX_DETECTORS, _open_file),
    "onnx": _open_any_file,
    "face-d2": _open_own,
    "config": _open_config,
    "predictions": _open_recorded,
    "shipped": _open_shipped,
    "haar": _open_haar,
    "mtcnn": _open_mtcnn,
}


def _adapter_of(target: str) -> str:
    path = Path(target)
    if path.is_dir() or path.name.endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        return "predictions"
    if path.is_file() or path.suffix == ".onnx":
        return "onnx"
    return "shipped"


def _check_options(spec: DetectorChoice, *allowed: str) -> None:
    unknown = sorted(set(spec.options) - set(allowed))
    if unknown:
        known = f"options are {', '.join(allowed)}" if allowed else "it has none"
        raise ValueError(f"detector {spec.name}: there is no option {', '.join(unknown)}; {known}")


def _numbers(spec: DetectorChoice, *allowed: str) -> dict[str, Any]:
    """The options as numbers."""
    _check_options(spec, *allowed)
    values: dict[str, Any] = {}
    for key, text in spec.options.items():
        number, kind = (int, "whole number") if key in _WHOLE else (float, "number")
        try:
            values[key] = number(text)
        except ValueError:
            raise ValueError(f"detector {spec.name}: {key}={text} is no {kind}") from None
    return values


def _plain_name(adapter: str, target: str, options: Mapping[str, str]) -> str:
    name = Path(target.rpartition("+")[2] if adapter == "config" else target).name
    name = name.removesuffix(".onnx").removesuffix(".pth") or adapter
    return name + "".join(f" {key}={value}" for key, value in options.items())
