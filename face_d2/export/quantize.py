"""Int8: static quantisation of an exported file, and what it costs in accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from face_d2.data.wider_face import WiderFaceImage
from face_d2.evaluation.wider_face.ground_truth import (
    WiderFaceGroundTruth,
    ground_truth_from_images,
    read_ground_truth,
)
from face_d2.evaluation.wider_face.protocol import widerface_ap
from face_d2.export.saturation import saturating_convolutions
from face_d2.ops.resize import resize
from face_d2.predictor.api import FaceDetector
from face_d2.predictor.images import load_image
from face_d2.predictor.runtimes import RUNTIMES
from face_d2.utils.files import replaced_file

__all__ = [
    "WEIGHT_BITS",
    "Quantisation",
    "average_precisions",
    "check_images",
    "find_faces",
    "own_faces",
    "quantize",
    "write_int8",
]

#: Bits of a weight to the processors on which such a file gives the right answer.
WEIGHT_BITS = {7: "all", 8: "those that add int8 products in 32 bits (x86-64 with VNNI, Arm)"}

#: Most images the value ranges are taken from.
_CALIBRATION_IMAGES = 100
#: Boxes of the float model that count as faces, and the threshold at which AP is measured.
_FACE_SCORE, _LEAST_SCORE = 0.5, 0.02
_CONVOLUTIONS = ("Conv", "ConvTranspose")
#: Between two int8 convolutions these are int8 too: each way out to float and back costs as much
#: time as they save. With them ONNX Runtime and OpenVINO fuse whole residual units.
_BETWEEN = ("Relu", "Clip", "Add")  # Clip is ReLU6's


@dataclass(frozen=True)
class Quantisation:
    """What became of a file.

    Attributes:
        kept_float: names of the convolutions that stay in float.
        images: number of images the AP was measured on.
        float_ap: AP of the float file in percent; 100 where its own boxes are the faces.
        int8_ap: runtime to the AP of the int8 file, in percent.
    """

    kept_float: tuple[str, ...]
    images: int
    float_ap: float
    int8_ap: Mapping[str, float]

    @property
    def loss(self) -> float:
        """AP points lost in the runtime that loses most."""
        return self.float_ap - min(self.int8_ap.values())


def quantize(
    source: str | Path,
    path: str | Path,
    images: Sequence[str | Path],
    *,
    ground_truth: str | Path | None = None,
    max_loss: float = 0.5,
    weight_bits: int = 7,
) -> Quantisation:
    """Writes the int8 file, if it is good enough.

    All convolutions are calculated in int8, with the rectifications and sums between them; if more
    than ``max_loss`` is lost so, those that predict scores and boxes stay in float, then also the
    first two, then also those just before the predicting ones.

    Args:
        source: a file of ``tools/export_onnx.py`` with its outputs "candidates".
        path: the file to write.
        images: like those the detector will see, from which value ranges are taken and on which the
            loss is measured.
        ground_truth: WIDER FACE's annotation text or ``.mat`` folder of these images, named
            ``event/name``; without it the boxes of the float file with a score of at least 0.5 are
            the faces.
        max_loss: most AP points (Hard) that may be lost, in every runtime that is installed.
        weight_bits: as of :func:`write_int8`. With 8, the loss holds for processors like this one.

    Raises:
        ValueError: there is no image, two share event and name, the float file finds no face in
            them, ``source`` is another file, or ``weight_bits`` is out of its range.
        RuntimeError: more is lost than allowed, whatever stays in float; nothing is written.
    """
    if not images:
        raise ValueError("int8 needs images to take the value ranges from")
    detector = FaceDetector.from_onnx(source, runtime="onnxruntime", score_threshold=_LEAST_SCORE)
    predictions = find_faces(detector, images)
    truth: WiderFaceGroundTruth | str | Path = ground_truth or own_faces(predictions)
    float_ap = _average_precisions(predictions, truth)["AP_hard"]
    tried = []
    with replaced_file(path) as temporary:
        for kept_float in _tiers(onnx.load(str(source))):
            write_int8(detector, source, temporary, images, kept_float, weight_bits)
            aps = {
                runtime: average_precisions(
                    FaceDetector.from_onnx(
                        temporary, runtime=runtime, score_threshold=_LEAST_SCORE
                    ),
                    images,
                    truth,
                )["AP_hard"]
                for runtime in RUNTIMES
                if find_spec(runtime) is not None
            }
            result = Quantisation(kept_float, len(images), float_ap, aps)
            if result.loss <= max_loss:
                return result
            tried.append(f"{result.loss:.2f} with {len(kept_float)} convolutions in float")
        raise RuntimeError(
            f"int8 loses more than {max_loss} AP points: {'; '.join(tried)}. Give more images like "
            "those the detector will see, or allow a greater loss; no int8 file was written"
        )


def check_images(images: Sequence[str | Path], ground_truth: str | Path | None) -> None:
    """Finds out before any work what :func:`quantize` would refuse.

    Args:
        images: as of :func:`quantize`.
        ground_truth: as of :func:`quantize`.

    Raises:
        ValueError: there is no image, one cannot be decoded, two share event and name, or the
            ground truth does not name one.
        OSError: an image cannot be opened, or there is no such ground truth.
    """
    if not images:
        raise ValueError("int8 needs images to take the value ranges from")
    names = _names(images)
    if ground_truth is not None:
        named = set(read_ground_truth(ground_truth).names)
        unknown = [(name, path) for name, path in zip(names, images) if name not in named]
        if unknown:
            name, path = unknown[0]
            raise ValueError(
                "FOLDER must be the folder of EVENT folders that the ground truth names; "
                f"{ground_truth} names {min(named)}, but not {name} ({path})"
            )
    for path in images:
        load_image(path)


class _Reader(CalibrationDataReader):
    """Images as the float file is given them."""

    def __init__(self, detector: FaceDetector, images: Sequence[str | Path]) -> None:
        step = -(-len(images) // _CALIBRATION_IMAGES)
        self._paths = iter(images[::step])
        self._spec = detector.backend.spec

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        path = next(self._paths, None)
        if path is None:
            return None
        image = load_image(path)
        if self._spec.input_format == "RGB":
            image = image[:, :, ::-1]
        return {"image": resize(image, *self._spec.size_rule.resized(*image.shape[:2]))[None]}


def write_int8(
    detector: FaceDetector,
    source: str | Path,
    path: Path,
    images: Sequence[str | Path],
    kept_float: Sequence[str] = (),
    weight_bits: int = 7,
) -> None:
    """Writes an int8 file whatever it loses.

    With weights of 7 bits (-64 to 64) the sum of two products fits into 16 bits, in which x86-64
    processors without VNNI add them: the file gives the same answer on every processor. Weights of
    8 bits give wrong answers on those processors.

    Args:
        detector: of the float file.
        source: the float file.
        path: the file to write.
        images: from which value ranges are taken.
        kept_float: names of convolutions that stay in float.
        weight_bits: one of ``WEIGHT_BITS``.

    Raises:
        ValueError: ``weight_bits`` is out of its range.
        RuntimeError: with 7 bits, the sum of two products could leave 16 bits all the same.
    """
    if weight_bits not in WEIGHT_BITS:
        raise ValueError(f"weight_bits must be one of {sorted(WEIGHT_BITS)}, not {weight_bits}")
    with replaced_file(path) as temporary:
        quantize_static(
            str(source),
            str(temporary),
            _Reader(detector, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=weight_bits == 7,
            op_types_to_quantize=["Conv", *_BETWEEN],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*kept_float, *_float_between(onnx.load(str(source)), kept_float)],
        )
        file = onnx.load(temporary)
        _free_outputs(file)
        _clip_bytes(file)
        metadata = {entry.key: entry.value for entry in file.metadata_props}
        metadata |= {
            "precision": "int8",
            "float_layers": ", ".join(kept_float),
            "weight_bits": str(weight_bits),
            "processors": WEIGHT_BITS[weight_bits],
        }
        helper.set_model_props(file, metadata)
        onnx.checker.check_model(file)
        if weight_bits == 7 and (names := saturating_convolutions(file)):
            raise RuntimeError(
                "the sum of two int8 products can leave 16 bits, which gives wrong answers on "
                f"x86-64 processors without VNNI, in {', '.join(names)}; ONNX Runtime's "
                "quantisation should have kept weights within -64 and 64: take another version of "
                "onnxruntime"
            )
        onnx.save(file, temporary)


def _free_outputs(file: onnx.ModelProto) -> None:
    """Leaves what the last convolutions put out, scores and boxes, as exact as they calculate it.

    Rounded to 8 bits, many scores would be equal.
    """
    graph, users = file.graph, _users(file)
    for conv in [node for node in graph.node if node.op_type in _CONVOLUTIONS]:
        if _next_convolutions(conv, users):
            continue
        for quantiser in users[conv.output[0]]:
            if quantiser.op_type != "QuantizeLinear":
                continue
            for dequantiser in users[quantiser.output[0]]:
                for user in users[dequantiser.output[0]]:
                    place = list(user.input).index(dequantiser.output[0])
                    user.input[place] = conv.output[0]
                graph.node.remove(dequantiser)
            graph.node.remove(quantiser)


def _clip_bytes(file: onnx.ModelProto) -> None:
    """Rectifies what is of bytes already, in a residual unit's trunk, without rounding it anew.

    With the scale it has, a byte is rectified by cutting it at the zero point: OpenVINO does so to
    a Clip, byte by byte, where it would calculate Relu and the second rounding in float, in eight
    times the memory and a tenth of the network's time. Nothing is lost: a finer second scale cannot
    tell apart what the first one has rounded to the same byte.
    """
    graph, users = file.graph, _users(file)
    makers = {name: node for node in graph.node for name in node.output}
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "clip_from"))
    for relu in [node for node in graph.node if node.op_type == "Relu"]:
        source = makers[relu.input[0]]
        if source.op_type != "DequantizeLinear" or len(users[relu.input[0]]) == 1:
            continue  # nothing but the Relu takes the value, which is rounded after it
        relu.op_type = "Clip"
        relu.input.append("clip_from")
        for quantiser in users[relu.output[0]]:
            quantiser.input[1:] = source.input[1:]
            for dequantiser in users[quantiser.output[0]]:
                dequantiser.input[1:] = source.input[1:]
                for conv in users[dequantiser.output[0]]:
                    _round_bias(graph, [makers[name] for name in conv.input])


def _round_bias(graph: onnx.GraphProto, inputs: Sequence[onnx.NodeProto]) -> None:
    """Rounds a convolution's bias with the product of the scales of its image and its weights.

    ONNX Runtime calculates in int8 only where the bias has that scale.

    Args:
        graph: changed in place.
        inputs: the convolution's three DequantizeLinear nodes.
    """
    constants = {constant.name: constant for constant in graph.initializer}

    def value(name: str) -> NDArray[Any]:
        return numpy_helper.to_array(constants[name])

    image, weights, bias = inputs
    scale = value(image.input[1]) * value(weights.input[1])
    exact = value(bias.input[0]) * value(bias.input[1])
    for name, array in (
        (bias.input[0], np.rint(exact / scale).astype(np.int32)),
        (bias.input[1], scale.astype(np.float32)),
    ):
        constants[name].CopyFrom(numpy_helper.from_array(array, name))


def _tiers(file: onnx.ModelProto) -> list[tuple[str, ...]]:
    """Sets of convolutions to keep in float, each holding the one before."""
    users = _users(file)
    convolutions = [node for node in file.graph.node if node.op_type in _CONVOLUTIONS]
    following = {node.name: _next_convolutions(node, users) for node in convolutions}
    last = [name for name, after in following.items() if not after]
    first = [node.name for node in convolutions[:2]]
    before = [name for name, after in following.items() if after and after <= set(last)]
    sets = ([], last, first + last, first + before + last)
    return [tuple(dict.fromkeys(names)) for names in sets]


def _float_between(file: onnx.ModelProto, kept_float: Sequence[str]) -> list[str]:
    """Nodes of ``_BETWEEN`` that no int8 convolution takes from, decoding's sums among them."""
    users = _users(file)
    nodes = [node for node in file.graph.node if node.op_type in _BETWEEN]
    return [node.name for node in nodes if _next_convolutions(node, users) <= set(kept_float)]


def _users(file: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Name of a value to the nodes that take it."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in file.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    return users


def _next_convolutions(
    node: onnx.NodeProto, users: Mapping[str, Sequence[onnx.NodeProto]]
) -> set[str]:
    """Names of the convolutions that what a node puts out reaches next."""
    reached: set[str] = set()
    seen: set[str] = set()
    left = list(node.output)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        for user in users.get(name, []):
            if user.op_type in _CONVOLUTIONS:
                reached.add(user.name)
            elif user.op_type != "Shape":  # sizes are no values
                left.extend(user.output)
    return reached


def find_faces(
    detector: FaceDetector, images: Sequence[str | Path]
) -> dict[str, NDArray[np.float64]]:
    """What a detector finds, ``{"event/name": (N, 5) x, y, w, h, score}``, for the evaluators.

    Args:
        detector: of a low score threshold.
        images: named ``event/name``.

    Raises:
        ValueError: two images share event and name.
        Exception: an image's own error, if it cannot be read.
    """
    predictions = {}
    for name, result in zip(_names(images), detector.stream(images)):
        if result.error is not None:
            raise result.error
        sides = result.boxes[:, 2:] - result.boxes[:, :2]
        rows = np.column_stack([result.boxes[:, :2], sides, result.scores])
        predictions[name] = rows.astype(np.float64)
    return predictions


def _names(images: Sequence[str | Path]) -> list[str]:
    """``event/name`` of each image, none twice."""
    owners: dict[str, str | Path] = {}
    for path in images:
        name = f"{Path(path).parent.name}/{Path(path).stem}"
        if name in owners:
            raise ValueError(
                f"{owners[name]} and {path} share the name {name!r}; give each image its own"
            )
        owners[name] = path
    return list(owners)


def own_faces(predictions: Mapping[str, NDArray[np.float64]]) -> WiderFaceGroundTruth:
    """Those with a score of at least 0.5, as ground truth for another form of the detector.

    Args:
        predictions: of :func:`find_faces`.

    Raises:
        ValueError: there are none.
    """
    faces = []
    for name, rows in predictions.items():
        boxes = rows[rows[:, 4] >= _FACE_SCORE, :4]
        faces.append(WiderFaceImage(f"{name}.jpg", boxes, np.zeros((len(boxes), 6), np.int64)))
    if not sum(len(image.boxes) for image in faces):
        raise ValueError(
            "the float model finds no face in the images for int8, so the loss cannot be measured"
        )
    return ground_truth_from_images(faces, "boxes of the float model")


def average_precisions(
    detector: FaceDetector,
    images: Sequence[str | Path],
    truth: WiderFaceGroundTruth | str | Path,
) -> dict[str, float]:
    """AP_easy, AP_medium and AP_hard in percent of what a detector finds in images.

    Args:
        detector: of a low score threshold.
        images: named ``event/name``.
        truth: WIDER FACE's annotation text or ``.mat`` folder.

    Raises:
        Exception: an image's own error, if it cannot be read.
    """
    return _average_precisions(find_faces(detector, images), truth)


def _average_precisions(
    predictions: Mapping[str, NDArray[np.float64]], truth: WiderFaceGroundTruth | str | Path
) -> dict[str, float]:
    found = widerface_ap(predictions, truth, images=list(predictions))
    return {name: 100 * value for name, value in found.items()}
