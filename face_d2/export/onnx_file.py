"""Exports a detector to a checked ONNX file."""

from __future__ import annotations

import face_d2.needs_detectron2  # isort: skip  (patches Detectron2 before its first import)
import hashlib
import inspect
import re
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import face_d2
from face_d2.export.graph import ExportGraph
from face_d2.export.graph_passes import tidy
from face_d2.modeling.base import OneStageDetector
from face_d2.ops.nms import select
from face_d2.ops.resize import SizeRule
from face_d2.ops.spec import DetectorSpec, Suppression
from face_d2.utils.files import replaced_file
from face_d2.utils.onnx_session import open_session

__all__ = ["OUTPUTS", "Comparison", "check_close", "export_onnx", "file_metadata", "traced"]

OUTPUTS = ("candidates", "maps", "detections")

#: Maximum differences between PyTorch and the file.
_BOX_TOLERANCE, _SCORE_TOLERANCE, _RELATIVE_TOLERANCE = 0.05, 1e-4, 1e-5
_OPSETS = range(16, 21)
#: (images, height, width) for the comparison: usual, odd, and small enough that LFFD enlarges.
_COMPARED_AT = ((1, 240, 320), (3, 131, 197), (1, 121, 257))


@dataclass(frozen=True)
class Comparison:
    """Comparison of PyTorch and the file on one batch.

    Attributes:
        shape: (images, height, width).
        differences: maximum absolute difference for each output.
        runtime: what ran the file.
    """

    shape: tuple[int, int, int]
    differences: dict[str, float]
    runtime: str = "ONNX Runtime"


def export_onnx(
    model: OneStageDetector,
    path: str | Path,
    *,
    size_rule: SizeRule,
    config: str,
    weights: str | Path,
    outputs: str = "candidates",
    opset: int = 17,
) -> list[Comparison]:
    """Writes the file, checks it, and compares it with PyTorch; if this fails, there is no file.

    The input is ``image``, (N, H, W, 3) uint8 in the model's channel order, with any N, H and W.
    Outputs: "candidates" are ``boxes`` (N, R, 4) XYXY in pixels of the image, ``scores`` (N, R) and
    ``levels`` (R,) of all locations; "detections" are ``detections`` (K, 7), rows of image index,
    x1, y1, x2, y2, score, level after threshold and NMS; "maps" those of ``forward_maps``, by name.

    Args:
        model: the detector, on the CPU.
        path: the ``.onnx`` to write.
        size_rule: the size rule of the config, by which users of the file resize images.
        config: the name of the config, for the metadata.
        weights: the checkpoint; its hash is stored in the metadata.
        outputs: one of ``OUTPUTS``.
        opset: ONNX operator set, 16 to 20.

    Raises:
        ValueError: an argument is out of its range, or "detections" are requested and the NMS of
            the model does not use IoU.
        RuntimeError: the file differs from PyTorch.
    """
    if outputs not in OUTPUTS:
        raise ValueError(f"outputs is {outputs!r}; expected one of {list(OUTPUTS)}")
    if opset not in _OPSETS:
        raise ValueError(f"opset is {opset}; expected {_OPSETS[0]} to {_OPSETS[-1]}")
    spec = replace(model.spec(size_rule, config), outputs=outputs)
    if outputs == "detections" and spec.suppression.nms_type != "iou":
        raise ValueError(
            f"ONNX has no {spec.suppression.nms_type!r} suppression; set MODEL.LFFD.NMS_TYPE to "
            '"iou", or export candidates'
        )
    path = Path(path)
    with replaced_file(path) as temporary:
        graph = ExportGraph(model, spec.size_rule.min_side, maps=outputs == "maps").eval()
        _trace(graph, temporary, opset)
        file = onnx.load(temporary)
        tidy(file)
        if outputs == "detections":
            _append_suppression(file, spec.suppression)
        helper.set_model_props(file, file_metadata(spec, weights, opset))
        # The comparison needs all outputs; those that were not requested are removed afterwards.
        comparisons = _compare(graph, spec, file.SerializeToString())
        if outputs == "detections":
            del file.graph.output[1:]
        onnx.checker.check_model(file, full_check=True)
        onnx.save(file, temporary)
        return comparisons


def _trace(graph: ExportGraph, path: Path, opset: int) -> None:
    names = list(graph.model.map_names) if graph.maps else ["boxes", "scores", "levels"]
    axes: dict[str, Any] = {"image": {0: "images", 1: "height", 2: "width"}}
    if graph.maps:
        axes |= {name: {0: "images", 2: f"{name}_rows", 3: f"{name}_columns"} for name in names}
    else:
        axes |= {name: {0: "images", 1: "candidates"} for name in ("boxes", "scores")}
        axes["levels"] = {0: "candidates"}
    images = torch.randint(0, 256, (2, 160, 192, 3), dtype=torch.uint8)
    traced(graph, images, path, opset, names, axes)


def traced(
    graph: nn.Module,
    images: Tensor,
    path: Path,
    opset: int,
    names: list[str],
    axes: dict[str, Any],
) -> None:
    """Writes a graph by PyTorch's tracing exporter.

    Args:
        graph: takes ``images``.
        images: an example of the input, which the file calls ``image``.
        path, opset: see :func:`export_onnx`.
        names: names of the outputs.
        axes: the dimensions of free size, by input and output, see ``torch.onnx.export``.

    Raises:
        ValueError: this PyTorch cannot write the operator set.
    """
    # The tracing exporter exists in every PyTorch from 2.0 on and supports computed sizes, such as
    # those of enlarged images.
    by_tracing = "dynamo" in inspect.signature(torch.onnx.export).parameters
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                graph,
                (images,),
                str(path),
                input_names=["image"],
                output_names=names,
                dynamic_axes=axes,
                opset_version=opset,
                **({"dynamo": False} if by_tracing else {}),
            )
        except (ValueError, RuntimeError) as error:  # by version of PyTorch
            if not re.search("opset.version", str(error)):
                raise
            raise ValueError(
                f"PyTorch {torch.__version__} cannot write opset {opset}; take a smaller one"
            ) from error


def _append_suppression(file: onnx.ModelProto, settings: Suppression) -> None:
    """Adds the threshold and NMS after the candidates; the number of candidates is not limited.

    Boxes without area get a score of 0, because ONNX's NMS would swap their corners and use them.
    """
    graph = file.graph

    def constant(name: str, values: Any, dtype: type) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    one = constant("nms_axis_1", [1], np.int64)
    ends = [
        node("Gather", ["boxes", constant(f"nms_{k}", k, np.int64)], f"nms_edge_{k}", axis=2)
        for k in range(4)
    ]
    wide = node("Greater", [ends[2], ends[0]], "nms_wide")
    tall = node("Greater", [ends[3], ends[1]], "nms_tall")
    area = node("And", [wide, tall], "nms_has_area")
    weight = node("Cast", [area], "nms_weight", to=TensorProto.FLOAT)
    weighted = node("Mul", ["scores", weight], "nms_weighted")
    chosen = node(
        "NonMaxSuppression",
        [
            "boxes",
            node("Unsqueeze", [weighted, one], "nms_scores"),
            constant("nms_limit", [settings.max_detections], np.int64),
            constant("nms_iou", [settings.nms_threshold], np.float32),
            constant("nms_score", [settings.score_threshold], np.float32),
        ],
        "nms_chosen",
    )  # (K, 3) image, class, candidate
    places = node("Gather", [chosen, constant("nms_both", [0, 2], np.int64)], "nms_places", axis=1)
    image = node("Gather", [chosen, constant("nms_first", [0], np.int64)], "nms_image", axis=1)
    index = node("Gather", [chosen, constant("nms_third", [2], np.int64)], "nms_index", axis=1)
    level = node("Gather", ["levels", index], "nms_level")
    score = node("GatherND", ["scores", places], "nms_score_of")
    columns = [
        node("Cast", [image], "nms_image_column", to=TensorProto.FLOAT),
        node("GatherND", ["boxes", places], "nms_boxes"),
        node("Unsqueeze", [score, one], "nms_score_column"),
        node("Cast", [level], "nms_level_column", to=TensorProto.FLOAT),
    ]
    node("Concat", columns, "detections", axis=1)
    graph.output.insert(
        0, helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["rows", 7])
    )


def file_metadata(spec: DetectorSpec, weights: str | Path, opset: int) -> dict[str, str]:
    """What a file says of itself."""
    return {
        **spec.to_metadata(),
        "opset": str(opset),
        "face_d2_version": face_d2.__version__,
        "git_revision": _git_revision(),
        "torch_version": str(torch.__version__),
        "weights_sha256": hashlib.sha256(Path(weights).read_bytes()).hexdigest(),
    }


def _git_revision() -> str:
    """Git revision of this package's checkout, with "-dirty" if it was changed."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    folder = Path(face_d2.__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # installed without git or a checkout
        return "unknown"
    return done.stdout.strip()


def _compare(graph: ExportGraph, spec: DetectorSpec, file: bytes) -> list[Comparison]:
    session = open_session(file)
    names = [output.name for output in session.get_outputs()]
    generator = np.random.default_rng(0)
    comparisons = []
    for shape in _COMPARED_AT:
        images = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        with torch.no_grad():
            expected = [output.numpy() for output in graph(torch.from_numpy(images))]
        found = session.run(None, {"image": images})
        if spec.outputs == "detections":
            # Computed from the file's candidates, because nearly equal scores can have another
            # order in PyTorch.
            expected.insert(0, _suppressed(found[1:], spec.suppression))
        comparisons.append(check_close(names, expected, found, shape))
    return comparisons


def check_close(
    names: Sequence[str],
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    shape: tuple[int, int, int],
    runtime: str = "ONNX Runtime",
) -> Comparison:
    """Compares the outputs that ``runtime`` computes from a file with PyTorch's.

    Args:
        names: names of the outputs.
        expected, found: the outputs of PyTorch and of the file.
        shape: (images, height, width) of the batch.

    Raises:
        RuntimeError: they differ.
    """
    differences = {}
    for name, ours, theirs in zip(names, expected, found):
        if ours.shape != theirs.shape:
            raise RuntimeError(
                f"the file gives {name} of shape {theirs.shape} for images {shape}, PyTorch "
                f"{ours.shape}"
            )
        if name == "boxes":  # parts outside the image are clipped
            ours, theirs = (b.clip(0, [shape[2], shape[1]] * 2) for b in (ours, theirs))
        distance = np.abs(ours - theirs)
        differences[name] = float(distance.max(initial=0))
        scores = name.startswith(("score", "logits"))
        limit = _SCORE_TOLERANCE if scores else _BOX_TOLERANCE
        if not (distance <= limit + _RELATIVE_TOLERANCE * np.abs(ours)).all():
            raise RuntimeError(
                f"the file's {name} differ from PyTorch's by {differences[name]:.3g} in {runtime} "
                f"for images {shape}; about {limit} is allowed"
            )
    return Comparison(shape, differences, runtime)


def _suppressed(candidates: Sequence[np.ndarray], settings: Suppression) -> np.ndarray:
    """The expected result of the last nodes of the graph, (K, 7)."""
    boxes, scores, levels = candidates
    scores = scores * (boxes[..., 2:] > boxes[..., :2]).all(axis=-1)
    unlimited = replace(settings, topk=scores.shape[1])
    rows = []
    for number, (own_boxes, own_scores) in enumerate(zip(boxes, scores)):
        kept = select(own_boxes, own_scores, levels, unlimited)
        columns = [np.full(len(kept), number), own_boxes[kept], own_scores[kept], levels[kept]]
        rows.append(np.column_stack(columns))
    return np.concatenate(rows).astype(np.float32)
