"""Exports a detector to an ONNX file that OpenCV's own ``cv2.dnn`` loads.

``cv2.dnn`` takes no uint8 images, no NHWC layout and no shapes that are computed at run time. Such
a file therefore has one size and a float input, as ``cv2.dnn.blobFromImage`` makes it, and ONNX
Runtime has folded everything that depends on the size into constants.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import face_d2.register  # isort: skip  (patches Detectron2 before its first import)
import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional as F

from face_d2.export.onnx_file import Comparison, check_close, file_metadata, traced
from face_d2.modeling.base import OneStageDetector
from face_d2.ops.resize import SizeRule
from face_d2.utils.files import replaced_file
from face_d2.utils.onnx_session import open_session

__all__ = ["export_for_opencv"]

_NAMES = ("boxes", "scores")


class _FixedGraph(nn.Module):
    """The network for float images of one size (height, width)."""

    def __init__(self, model: OneStageDetector, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        self.size = size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, H, W) float32, 0-255, to boxes (1, R, 4) XYXY in pixels and scores (1, R)."""
        height, width = self.size
        divisor = max(self.model.size_divisibility, 1)
        x = (image - self.model.pixel_mean) / self.model.pixel_std
        if height % divisor or width % divisor:
            x = F.pad(x, (0, -width % divisor, 0, -height % divisor))
        boxes, scores, _ = self.model.decode(self.model.forward_maps(x))
        if self.model.clips_before_nms:
            edges = torch.tensor([width, height, width, height], dtype=boxes.dtype)
            boxes = torch.minimum(boxes.clamp(min=0), edges)
        return boxes, scores


def export_for_opencv(
    model: OneStageDetector,
    path: str | Path,
    size: tuple[int, int],
    *,
    size_rule: SizeRule,
    config: str,
    weights: str | Path,
    opset: int = 17,
) -> list[Comparison]:
    """Writes the file and compares ONNX Runtime and ``cv2.dnn`` with PyTorch.

    The input is ``image``, (1, 3, H, W) float32 in 0-255, in the model's channel order. The outputs
    are ``boxes`` (1, R, 4) XYXY in pixels of that image, and ``scores`` (1, R), before NMS. If a
    check fails, there is no file.

    Args:
        size: (height, width) of the images.
        model, path, size_rule, config, weights, opset: see
            :func:`face_d2.export.onnx_file.export_onnx`.

    Raises:
        ValueError: the size is below the shortest side that the network searches.
        RuntimeError: the installed OpenCV does not load the file, or a result differs from
            PyTorch's.
    """
    spec = replace(model.spec(size_rule, config), outputs="opencv")
    least = int(max(spec.size_rule.min_side, spec.min_image_side))
    if min(size) < least:
        raise ValueError(f"size {size[0]} x {size[1]}: both sides must be at least {least}")
    graph = _FixedGraph(model, size).eval()
    image = torch.from_numpy(_picture(size))
    path = Path(path)
    with replaced_file(path) as temporary:
        traced(graph, image, temporary, opset, list(_NAMES), {})
        file = _folded(temporary)
        metadata = file_metadata(spec, weights, opset)
        metadata["input"] = f"float32 (1, 3, {size[0]}, {size[1]}), {spec.input_format}, 0-255"
        helper.set_model_props(file, metadata)
        onnx.checker.check_model(file, full_check=True)
        onnx.save(file, temporary)
        with torch.no_grad():
            expected = [output.numpy() for output in graph(image)]
        found = {
            "ONNX Runtime": open_session(temporary).run(list(_NAMES), {"image": image.numpy()}),
            "cv2.dnn": _by_opencv(temporary, image.numpy()),
        }
        return [
            check_close(_NAMES, expected, outputs, (1, *size), runtime)
            for runtime, outputs in found.items()
        ]


def _picture(size: tuple[int, int]) -> NDArray[np.float32]:
    """Smooth colors, (1, 3, H, W), so that scores differ from place to place."""
    coarse = np.random.default_rng(0).integers(0, 256, (size[0] // 8 + 2, size[1] // 8 + 2, 3))
    smooth = cv2.resize(coarse.astype(np.uint8), size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(smooth.transpose(2, 0, 1)[None].astype(np.float32))


def _folded(path: Path) -> onnx.ModelProto:
    """The graph with what does not depend on the image as constants, in standard operators."""
    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder, "folded.onnx")
        open_session(path, folded=folded)
        return onnx.load(folded)


def _by_opencv(path: Path, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    try:
        net = cv2.dnn.readNetFromONNX(str(path))
        net.setInput(image)
        return list(net.forward(list(_NAMES)))
    except cv2.error as error:
        raise RuntimeError(
            f"OpenCV {cv2.__version__} cannot run the file ({' '.join(str(error).split())}); "
            "update OpenCV"
        ) from error
