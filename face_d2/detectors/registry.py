"""Which detectors there are, and how a text such as ``yunet:FILE`` becomes one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from face_d2.detectors.base import Detector
from face_d2.detectors.centerface import CenterFace
from face_d2.detectors.onnx_detector import OnnxDetector, Settings
from face_d2.detectors.onnx_graph import OnnxGraph
from face_d2.detectors.own import Detectron2Model, FaceD2
from face_d2.detectors.packages import MTCNN, HaarCascade
from face_d2.detectors.recorded import RecordedDetections
from face_d2.detectors.scrfd import SCRFD
from face_d2.detectors.ssd import S3FD, RetinaFace, UltraLight
from face_d2.detectors.yolo import YOLOv5Face, YOLOv8Face
from face_d2.detectors.yunet import YuNet

__all__ = ["ONNX_DETECTORS", "DetectorSpec", "open_detector", "open_onnx"]

#: Those that are ONNX files. To add a detector, add its class here.
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
        S3FD,
    )
}
#: What an exported file of this project carries in its metadata.
_OWN_KEY = "face_d2"
_SETTINGS = {field.name: field for field in fields(Settings)}


@dataclass(frozen=True)
class DetectorSpec:
    """A detector as a user names it: ``[NAME=][ADAPTER:]TARGET[?KEY=VALUE&KEY=VALUE]``.

    Attributes:
        name: what it is called in tables.
        adapter: which adapter; "" where the target tells.
        target: file, folder or name.
        options: settings that differ from the adapter's.
    """

    name: str
    adapter: str
    target: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> DetectorSpec:
        """Reads the text.

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


def open_detector(spec: str | DetectorSpec, threads: int = 0) -> Detector | RecordedDetections:
    """Opens what a user named.

    Args:
        spec: ``[NAME=][ADAPTER:]TARGET[?KEY=VALUE&...]``. Adapters are the keys of
            ``ONNX_DETECTORS`` and "face-d2" (an exported file), "config" (``CONFIG+WEIGHTS``),
            "predictions" (a folder or archive), "haar", "mtcnn". Without an adapter, a file is
            recognized by its inputs and outputs, a folder holds predictions, and anything else is
            the name of weights that are shipped. Options of ONNX files are ``size``, ``score`` and
            ``nms``, see :class:`Settings`.
        threads: CPU threads; 0 leaves it to the runtime.

    Raises:
        FileNotFoundError: there is no such file or name.
        ImportError: a package that the detector needs is not installed.
        ValueError: the file is another detector's, or an option does not exist or fit.
    """
    if isinstance(spec, str):
        spec = DetectorSpec.parse(spec)
    return _OPENERS[spec.adapter or _adapter_of(spec.target)](spec, threads)


def open_onnx(
    path: str | os.PathLike[str],
    adapter: str = "",
    threads: int = 0,
    **options: Any,
) -> OnnxDetector:
    """A detector of anybody's from its ONNX file.

    Args:
        path: the file.
        adapter: a key of ``ONNX_DETECTORS``; "" recognizes the file by its inputs and outputs.
        threads: CPU threads; 0 leaves it to the runtime.
        options: fields of :class:`Settings` that differ from the adapter's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no adapter, or several, know the file; or an option does not exist or fit.
    """
    graph = OnnxGraph(path, threads)
    detector = ONNX_DETECTORS[adapter] if adapter else _recognized(graph)
    if detector.free_size and not graph.free_size:
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


def _open_file(spec: DetectorSpec, threads: int) -> Detector:
    return open_onnx(spec.target, spec.adapter, threads, **_options(spec, Settings))


def _open_any_file(spec: DetectorSpec, threads: int) -> Detector:
    if _OWN_KEY in OnnxGraph(spec.target, 1).signature.metadata:
        return _open_own(spec, threads)
    return _open_file(spec, threads)


def _open_own(spec: DetectorSpec, threads: int) -> Detector:
    options = _options(spec, Settings, allowed=("score",))
    return FaceD2.from_onnx(Path(spec.target), threads, **options)


def _open_config(spec: DetectorSpec, threads: int) -> Detector:
    import torch

    config, plus, weights = spec.target.rpartition("+")
    if not plus:
        raise ValueError(f"config:{spec.target}: expected config:FILE+WEIGHTS")
    unknown = set(spec.options) - {"class"}
    if unknown:
        raise _unknown_option(spec, unknown, ("class",))
    if threads:
        torch.set_num_threads(threads)
    return Detectron2Model(config, Path(weights), int(spec.options.get("class", 0)))


def _open_shipped(spec: DetectorSpec, threads: int) -> Detector:
    from face_d2.predictor.api import FaceDetector

    if spec.options:
        raise _unknown_option(spec, spec.options, ())
    open_named = getattr(FaceDetector, "from_pretrained", None)
    if open_named is None:
        raise FileNotFoundError(
            f"{spec.target}: no such file or folder, and this version ships no weights by name"
        )
    return FaceD2(open_named(spec.target), None)


def _open_recorded(spec: DetectorSpec, threads: int) -> RecordedDetections:
    if spec.options:
        raise _unknown_option(spec, spec.options, ())
    return RecordedDetections(spec.target)


def _open_haar(spec: DetectorSpec, threads: int) -> Detector:
    import cv2

    if spec.options:
        raise _unknown_option(spec, spec.options, ())
    if threads:
        cv2.setNumThreads(threads)
    return HaarCascade(spec.target or None)


def _open_mtcnn(spec: DetectorSpec, threads: int) -> Detector:
    unknown = set(spec.options) - {"min_face_size"}
    if unknown:
        raise _unknown_option(spec, unknown, ("min_face_size",))
    if threads:
        import torch

        torch.set_num_threads(threads)
    return MTCNN(int(spec.options.get("min_face_size", 20)))


_WITHOUT_FILE = ("haar", "mtcnn")
_OPENERS: Mapping[str, Callable[[DetectorSpec, int], Detector | RecordedDetections]] = {
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


def _options(
    spec: DetectorSpec, settings: type, allowed: tuple[str, ...] = tuple(_SETTINGS)
) -> dict[str, Any]:
    unknown = set(spec.options) - set(allowed)
    if unknown:
        raise _unknown_option(spec, unknown, allowed)
    values: dict[str, Any] = {}
    for key, text in spec.options.items():
        number = int if key == "size" else float
        try:
            values[key] = number(text)
        except ValueError:
            raise ValueError(f"detector {spec.name}: {key}={text} is not a number") from None
    return values


def _unknown_option(spec: DetectorSpec, unknown: Any, allowed: tuple[str, ...]) -> ValueError:
    known = f"options are {', '.join(allowed)}" if allowed else "it has none"
    return ValueError(
        f"detector {spec.name}: there is no option {', '.join(sorted(unknown))}; {known}"
    )


def _plain_name(adapter: str, target: str, options: Mapping[str, str]) -> str:
    name = Path(target.rpartition("+")[2] if adapter == "config" else target).name
    name = name.removesuffix(".onnx").removesuffix(".pth") or adapter
    return name + "".join(f" {key}={value}" for key, value in options.items())
