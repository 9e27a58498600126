"""Static int8 quantization of an exported file, with a measurement of the loss of AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from face_d2.evaluation.wider_face.ground_truth import WiderFaceGroundTruth
from face_d2.export.accuracy import (
    average_precisions,
    average_precisions_of,
    find_faces,
    own_faces,
)
from face_d2.export.saturation import saturating_convolutions
from face_d2.ops.resize import resize
from face_d2.predictor.api import FaceDetector
from face_d2.predictor.images import load_image
from face_d2.predictor.runtimes import RUNTIMES
from face_d2.utils.files import replaced_file
from face_d2.utils.onnx_session import open_session

__all__ = [
    "WEIGHT_BITS",
    "Quantization",
    "quantize",
    "write_int8",
]

#: Bits of the weights -> processors on which such a file is correct.
WEIGHT_BITS = {7: "all", 8: "those that add int8 products in 32 bits (x86-64 with VNNI, Arm)"}

#: Maximum number of images for measuring value ranges.
_CALIBRATION_IMAGES = 100
#: Score threshold for measuring AP.
_MIN_SCORE = 0.02
_CONVOLUTIONS = ("Conv", "ConvTranspose")
#: Metadata by which ONNX Runtime recognizes an optimized file.
_OPTIMIZED = "onnx.quant.pre_process"
#: Nodes that are int8 too if they are between int8 convolutions, because a conversion to float and
#: back takes as much time as int8 saves. ONNX Runtime and OpenVINO then fuse whole residual units.
_BETWEEN = ("Relu", "Clip", "Add")  # Clip is ReLU6


@dataclass(frozen=True)
class Quantization:
    """Result of a quantization.

    Attributes:
        kept_float: names of the convolutions that remain in float.
        images: number of images on which AP was measured.
        float_ap: AP of the float file in percent; 100 if its own boxes are the ground truth.
        int8_ap: runtime -> AP of the int8 file, in percent.
    """

    kept_float: tuple[str, ...]
    images: int
    float_ap: float
    int8_ap: Mapping[str, float]

    @property
    def loss(self) -> float:
        """Loss of AP, in points, in the runtime with the largest loss."""
        return self.float_ap - min(self.int8_ap.values())


def quantize(
    source: str | Path,
    path: str | Path,
    images: Sequence[str | Path],
    *,
    ground_truth: str | Path | None = None,
    max_loss: float = 0.5,
    weight_bits: int = 7,
    runtimes: Sequence[str] | None = None,
) -> Quantization:
    """Writes an int8 file if its loss of AP is small enough.

    At first, all convolutions and the ReLUs and sums between them are int8. While the loss is above
    ``max_loss``, more convolutions stay in float: those that predict scores and boxes, then also
    the first two, then also those directly before the predictors.

    Args:
        source: a file of ``face-d2-export`` with the outputs "candidates".
        images: images that resemble those of the application, for calibration and for the loss.
        ground_truth: WIDER FACE's annotation text or ``.mat`` folder for these images, which are
            then named ``event/name``. Without it, boxes of the float file with a score of at least
            0.5 are the ground truth.
        max_loss: maximum loss of AP (Hard), in points, in each of the runtimes.
        weight_bits: see :func:`write_int8`. With 8, the loss is valid only for processors like this
            one.
        runtimes: names of the runtimes in which the loss is measured; None for all that are
            installed.

    Raises:
        ValueError: there is no image, two images have the same event and name, the float file
            detects no face, ``source`` has other outputs, or ``weight_bits`` is unknown.
        RuntimeError: the loss is too large in all cases; no file is written.
    """
    if not images:
        raise ValueError("int8 needs images to take the value ranges from")
    detector = FaceDetector.from_onnx(source, runtime="onnxruntime", score_threshold=_MIN_SCORE)
    predictions = find_faces(detector, images)
    truth: WiderFaceGroundTruth | str | Path = ground_truth or own_faces(predictions)
    float_ap = average_precisions_of(predictions, truth)["AP_hard"]
    installed = [runtime for runtime in RUNTIMES if find_spec(runtime) is not None]
    tried = []
    with replaced_file(path) as temporary:
        for kept_float in _tiers(onnx.load(str(source))):
            write_int8(detector, source, temporary, images, kept_float, weight_bits)
            aps = {
                runtime: average_precisions(
                    FaceDetector.from_onnx(temporary, runtime=runtime, score_threshold=_MIN_SCORE),
                    images,
                    truth,
                )["AP_hard"]
                for runtime in (runtimes or installed)
            }
            result = Quantization(kept_float, len(images), float_ap, aps)
            if result.loss <= max_loss:
                return result
            tried.append(f"{result.loss:.2f} with {len(kept_float)} convolutions in float")
        raise RuntimeError(
            f"int8 loses more than {max_loss} AP points: {'; '.join(tried)}. Give more images like "
            "those the detector will see, or allow a greater loss; no int8 file was written"
        )


class _Reader(CalibrationDataReader):
    """Images, prepared as for the float file."""

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
    """Writes an int8 file without measuring its loss.

    x86-64 processors without VNNI add two products in 16 bits. With weights of 7 bits (-64 to 64),
    the sum fits, so the file gives the same result on every processor. With weights of 8 bits,
    results are wrong on these processors.

    Args:
        detector: the detector of the float file.
        source: the float file.
        images: images for measuring value ranges.
        kept_float: names of convolutions that remain in float.
        weight_bits: one of ``WEIGHT_BITS``.

    Raises:
        ValueError: ``weight_bits`` is out of its range.
        RuntimeError: with 7 bits, the sum of two products could still overflow 16 bits.
    """
    if weight_bits not in WEIGHT_BITS:
        raise ValueError(f"weight_bits is {weight_bits}; expected one of {sorted(WEIGHT_BITS)}")
    with replaced_file(path) as temporary, TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        _optimize(source, optimized)
        quantize_static(
            str(optimized),
            str(temporary),
            _Reader(detector, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=weight_bits == 7,
            op_types_to_quantize=["Conv", *_BETWEEN],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*kept_float, *_float_between(onnx.load(optimized), kept_float)],
        )
        file = onnx.load(temporary)
        _free_outputs(file)
        _clip_bytes(file)
        metadata = {entry.key: entry.value for entry in file.metadata_props}
        metadata.pop(_OPTIMIZED)
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
                "quantization should have kept weights within -64 and 64: use another version of "
                "onnxruntime"
            )
        onnx.save(file, temporary)


def _optimize(source: str | Path, path: Path) -> None:
    """Writes a file in which constants are computed and folded into the convolutions.

    A frozen batch normalization after a convolution is a multiplication and a sum in the file. If
    they stayed, the output of the convolution would be rounded to int8 once before and once after
    them, and weights that are stored in half precision would be rounded like activations.
    Convolutions keep their names.
    """
    open_session(source, folded=path)
    file = onnx.load(path)
    used = {node.domain for node in file.graph.node}  # ONNX Runtime declares all that it knows
    for opset in [opset for opset in file.opset_import if opset.domain not in used]:
        file.opset_import.remove(opset)
    # Or the quantization advises to optimize first.
    file.metadata_props.add(key=_OPTIMIZED, value="onnxruntime.quant")
    onnx.save(file, path)


def _free_outputs(file: onnx.ModelProto) -> None:
    """Keeps the outputs of the last convolutions, scores and boxes, in float.

    If they were rounded to 8 bits, many scores would be equal.
    """
    graph, users = file.graph, _users(file)
    for conv in [node for node in graph.node if node.op_type in _CONVOLUTIONS]:
        if _next_convolutions(conv, users):
            continue
        quantizers = [q for q in users[conv.output[0]] if q.op_type == "QuantizeLinear"]
        for quantizer in quantizers:
            for dequantizer in users[quantizer.output[0]]:
                for user in users[dequantizer.output[0]]:
                    place = list(user.input).index(dequantizer.output[0])
                    user.input[place] = conv.output[0]
                graph.node.remove(dequantizer)
            graph.node.remove(quantizer)


def _clip_bytes(file: onnx.ModelProto) -> None:
    """Replaces the ReLU in the trunk of a residual unit by a Clip of the int8 values.

    With the same scale, a ReLU clips an int8 value at the zero point. OpenVINO computes such a Clip
    in int8. It would compute a ReLU and the following rounding in float, which needs eight times
    the memory and a tenth of the time of the network. The result is equally exact, because a
    second, finer scale cannot separate values that the first one has rounded to the same int8
    value.
    """
    graph, users = file.graph, _users(file)
    makers = {name: node for node in graph.node for name in node.output}
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "clip_from"))
    for relu in [node for node in graph.node if node.op_type == "Relu"]:
        source = makers[relu.input[0]]
        if source.op_type != "DequantizeLinear" or len(users[relu.input[0]]) == 1:
            continue  # only the ReLU uses the value, which is rounded after it
        relu.op_type = "Clip"
        relu.input.append("clip_from")
        for quantizer in users[relu.output[0]]:
            quantizer.input[1:] = source.input[1:]
            for dequantizer in users[quantizer.output[0]]:
                dequantizer.input[1:] = source.input[1:]
                for conv in users[dequantizer.output[0]]:
                    _round_bias(graph, [makers[name] for name in conv.input])


def _round_bias(graph: onnx.GraphProto, inputs: Sequence[onnx.NodeProto]) -> None:
    """Rounds the bias of a convolution with the product of the scales of its input and weights.

    ONNX Runtime computes a convolution in int8 only if the bias has this scale. ``inputs`` are the
    convolution's three DequantizeLinear nodes.
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
    """Sets of convolutions to keep in float; each set includes the previous one."""
    users = _users(file)
    convolutions = [node for node in file.graph.node if node.op_type in _CONVOLUTIONS]
    following = {node.name: _next_convolutions(node, users) for node in convolutions}
    last = [name for name, after in following.items() if not after]
    first = [node.name for node in convolutions[:2]]
    before = [name for name, after in following.items() if after and after <= set(last)]
    sets = ([], last, first + last, first + before + last)
    return [tuple(dict.fromkeys(names)) for names in sets]


def _float_between(file: onnx.ModelProto, kept_float: Sequence[str]) -> list[str]:
    """Nodes of ``_BETWEEN`` that are not between int8 convolutions: none uses their output, such as
    sums of the decoding, or an input comes from another operation, such as the products of DF2S2's
    fusion."""
    users = _users(file)
    makers = {name: node for node in file.graph.node for name in node.output}
    nodes = [node for node in file.graph.node if node.op_type in _BETWEEN]

    def is_between(node: onnx.NodeProto) -> bool:
        made = [makers[name].op_type for name in node.input if name in makers]
        return set(made) <= {"Conv", *_BETWEEN} and not (
            _next_convolutions(node, users) <= set(kept_float)
        )

    return [node.name for node in nodes if not is_between(node)]


def _users(file: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Name of a value -> the nodes that use it."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in file.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    return users


def _next_convolutions(
    node: onnx.NodeProto, users: Mapping[str, Sequence[onnx.NodeProto]]
) -> set[str]:
    """Names of the next convolutions that use the output of a node."""
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
            elif user.op_type != "Shape":  # shape outputs carry no activations
                left.extend(user.output)
    return reached
