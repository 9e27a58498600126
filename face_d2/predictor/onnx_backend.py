"""Runs an exported file with ONNX Runtime or OpenVINO; NumPy does the rest."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from face_d2.predictor.model_card import ModelCard
from face_d2.predictor.results import Found
from face_d2.predictor.suppression import select

if TYPE_CHECKING:
    import openvino

__all__ = ["RUNTIMES", "OnnxBackend", "openvino_core"]

#: By speed on a CPU, the fastest first.
RUNTIMES = ("openvino", "onnxruntime")

_Arrays: TypeAlias = "Sequence[NDArray]"
#: Images (N, H, W, 3) uint8 to the outputs of the graph.
_Session: TypeAlias = "Callable[[NDArray[np.uint8]], _Arrays]"


class OnnxBackend:
    """Runs a file of ``tools/export_onnx.py``; see :class:`face_d2.predictor.api.Backend`.

    Args:
        path: the file.
        runtime: one of ``RUNTIMES``, or "auto" for the first that is installed.
        score_threshold: replaces the file's.
        threads: CPU threads.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the runtime is not installed.
        ValueError: ``runtime`` or ``threads`` is out of its range, or the file is another one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        runtime: str = "auto",
        score_threshold: float | None = None,
        threads: int | None = None,
    ) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        start = {"openvino": _start_openvino, "onnxruntime": _start_onnxruntime}
        try:
            self._session, metadata, self.runtime = start[_chosen(runtime)](str(path), threads or 0)
        except (ImportError, KeyError):
            raise
        except Exception as error:  # either runtime has exceptions of its own
            raise ValueError(f"{path}: cannot be loaded as an ONNX model ({error})") from error
        self.card = ModelCard.from_metadata(metadata, str(path))
        self.runtime += f", {metadata.get('precision', 'float32')}"
        if self.card.outputs != "candidates":
            raise ValueError(
                f"{path}: its outputs are {self.card.outputs!r}; FaceDetector needs a file "
                "exported with --outputs candidates"
            )
        if score_threshold is not None:
            settings = replace(self.card.suppression, score_threshold=score_threshold)
            self.card = replace(self.card, suppression=settings)

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Found]:
        """See :class:`face_d2.predictor.api.Backend`.

        One image at a time: on a CPU several together are no faster.
        """
        return [self._detect_one(image) for image in images]

    def _detect_one(self, image: NDArray[np.uint8]) -> Found:
        if min(image.shape[:2]) < self.card.least_side:
            return Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
        boxes, scores, levels = self._session(np.ascontiguousarray(image[None]))
        return select(boxes[0], scores[0], levels, self.card.suppression)


def _chosen(runtime: str) -> str:
    if runtime not in ("auto", *RUNTIMES):
        raise ValueError(f'runtime is "auto" or one of {list(RUNTIMES)}, not {runtime!r}')
    wanted = RUNTIMES if runtime == "auto" else (runtime,)
    for name in wanted:
        if importlib.util.find_spec(name) is not None:
            return name
    extra = "openvino" if runtime == "openvino" else "onnx"
    raise ImportError(
        f"{' or '.join(wanted)} is not installed: pip install '{wanted[-1]}', or install this "
        f"project with the extra [{extra}]"
    )


def _start_onnxruntime(path: str, threads: int) -> tuple[_Session, dict[str, str], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # 0: its own choice
    options.log_severity_level = 3  # shapes that change between images are no news
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map

    def run(images: NDArray[np.uint8]) -> _Arrays:
        return session.run(None, {"image": images})

    return run, metadata, f"ONNX Runtime {onnxruntime.__version__} on CPU"


@functools.cache
def openvino_core() -> openvino.Core:
    """OpenVINO's runtime, one for the process.

    With its first network a core gives the thread another stack for signals, and takes it back when
    it goes. Of two cores the second to go would leave the first one's stack, which is no longer
    there, and the next signal, a child's end or Ctrl-C, would end the process (seen in 2026.4).
    """
    import openvino

    return openvino.Core()


def _start_openvino(path: str, threads: int) -> tuple[_Session, dict[str, str], str]:
    import openvino

    core = openvino_core()
    model = core.read_model(path)
    # By itself OpenVINO calculates in bfloat16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(threads)}
    compiled = core.compile_model(model, "CPU", settings)
    metadata = {key: str(value) for key, value in model.get_rt_info("framework").value.items()}

    def run(images: NDArray[np.uint8]) -> _Arrays:
        answers = compiled(images)
        return [answers[index] for index in range(len(answers))]

    return run, metadata, f"OpenVINO {openvino.__version__.split('-')[0]} on CPU"
