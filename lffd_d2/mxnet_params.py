"""Reads the released LFFD weights, MXNet files of named arrays, with NumPy only.

The format (``mxnet.nd.save``; all integers little-endian)::

    uint64 0x112, uint64 0          header
    uint64 count, count arrays      see _Reader.array
    uint64 count, count names       uint64 length, UTF-8 bytes

Files are downloaded and not trusted: every length is checked against the remaining bytes, and
anything unexpected raises an :class:`MXNetFileError` with the position. Nothing is unpickled.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_d2.utils.download import git_blob_id
from lffd_d2.receptive_field import Variant

__all__ = [
    "RELEASES",
    "Conversion",
    "MXNetFileError",
    "Release",
    "convert_names",
    "expected_shapes",
    "git_blob_id",
    "parse_ndarrays",
    "read_ndarrays",
]

_LIST_MAGIC = 0x112
_DENSE_MAGICS = (0xF993FAC8, 0xF993FAC9, 0xF993FACA)  # versions 1, 2 and 3 of an array
_DENSE_STORAGE = 0
_DTYPES = {0: "<f4", 1: "<f8", 2: "<f2"}
_MAX_DIMENSIONS = 8


class MXNetFileError(ValueError):
    """A file is not a list of named MXNet arrays, or not the expected one."""


@dataclass(frozen=True)
class Release:
    """A weight file in the LFFD authors' repository.

    Attributes:
        variant: name in :data:`lffd_d2.variants.VARIANTS`.
        target: what it detects.
        path: path in :attr:`repository` at commit :attr:`commit`.
        license: license of the file.
        size: size in bytes, if known.
    """

    variant: str
    target: str
    path: str
    license: str = "MIT"
    repository: str = "YonghaoHe/LFFD-A-Light-and-Fast-Face-Detector-for-Edge-Devices"
    commit: str = "529203dc07b1bd435a82907872f37d4c0c3b6807"
    size: int | None = None

    def __str__(self) -> str:
        return f"{self.variant}, {self.target}, {Path(self.path).name}, {self.license}"


#: The released files by git blob id.
RELEASES: dict[str, Release] = {
    "277e7d5fa78d0916ef3694fbf85c1e21b4c0aa55": Release(
        "25L8S",
        "faces (v1)",
        "face_detection/saved_model/configuration_10_560_25L_8scales_v1/"
        "train_10_560_25L_8scales_v1_iter_1400000.params",
    ),
    "7a12e0c5589705129588c9181615c73a5010c81b": Release(
        "20L5S",
        "faces (v2)",
        "face_detection/saved_model/configuration_10_320_20L_5scales_v2/"
        "train_10_320_20L_5scales_v2_iter_1000000.params",
    ),
    "e25f3907b00ddb506a6ec3bb9deb5046bfc6da87": Release(
        "17L4S",
        "heads",
        "head_detection/saved_model/configuration_10_160_17L_4scales_v1_2019-09-20-13-08-26/"
        "train_10_160_17L_4scales_v1_iter_800000.params",
        size=4_115_468,
    ),
    "d15cd1c525dd95b5b30be3e62b9397b8176d8481": Release(
        "20L4S",
        "pedestrians",
        "pedestrian_detection/saved_model/"
        "configuration_30_320_20L_4scales_v1_2019-09-11-19-25-41/"
        "train_30_320_20L_4scales_v1_iter_500000.params",
    ),
    "3fae0c7766eeb0e57d2f1fa6ff235f6d99e6e760": Release(
        "16L3S",
        "license plates",
        "license_plate_detection/saved_model/"
        "configuration_64_512_16L_3scales_v1_2019-09-29-13-41-44/"
        "train_64_512_16L_3scales_v1_iter_1000000.params",
        size=3_798_414,
    ),
    "bf4f8ebddabe7372eda9b73dd3e84a7271cc72a5": Release(
        "16L3S-small",
        "license plates (small)",
        "license_plate_detection/saved_model/"
        "configuration_64_512_16L_3scales_v1_small_2020-03-25-19-50-59/"
        "train_64_512_16L_3scales_v1_small_iter_1000000.params",
        size=1_951_886,
    ),
}


def read_ndarrays(path: str | Path) -> dict[str, NDArray[np.floating]]:
    """Reads a file of named arrays; see :func:`parse_ndarrays`.

    Raises:
        MXNetFileError: the file is invalid; the message names the file and the reason.
        OSError: the file cannot be read.
    """
    try:
        return parse_ndarrays(Path(path).read_bytes())
    except MXNetFileError as error:
        raise MXNetFileError(f"{path}: {error}") from None


def parse_ndarrays(data: bytes) -> dict[str, NDArray[np.floating]]:
    """Parses the bytes that ``mxnet.nd.save`` writes for a dict of dense floating-point arrays.

    Returns:
        Arrays by name (with MXNet's prefix, e.g. "arg:conv1_weight"), in the order of the file.

    Raises:
        MXNetFileError: the bytes are not such a file.
    """
    reader = _Reader(data)
    magic, reserved = reader.unpack("<QQ", "the file header")
    if magic != _LIST_MAGIC or reserved != 0:
        raise MXNetFileError("not an MXNet parameter file (its first 16 bytes are something else)")
    arrays = [reader.array(i) for i in range(reader.count("arrays", min_bytes=4))]
    names = [reader.name(i) for i in range(reader.count("names", min_bytes=8))]
    if reader.left:
        raise MXNetFileError(f"{reader.left} bytes too many at the end")
    if len(names) != len(arrays):
        raise MXNetFileError(f"{len(arrays)} arrays but {len(names)} names")
    if len(set(names)) != len(names):
        raise MXNetFileError("a name occurs twice")
    return dict(zip(names, arrays))


class _Reader:
    """A cursor over bytes that never reads beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def take(self, length: int, what: str) -> memoryview:
        if length > self.left:
            raise MXNetFileError(
                f"truncated: {what} at byte {self._position} takes {length} bytes, {self.left} are "
                "left"
            )
        taken = self._data[self._position : self._position + length]
        self._position += length
        return taken

    def unpack(self, layout: str, what: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))

    def count(self, what: str, min_bytes: int) -> int:
        """Reads the number of items, of which each takes at least ``min_bytes`` bytes."""
        (count,) = self.unpack("<Q", f"the number of {what}")
        if count * min_bytes > self.left:
            raise MXNetFileError(f"claims {count} {what}, more than the file can hold")
        return int(count)

    def array(self, index: int) -> NDArray[np.floating]:
        """Reads one dense array: magic, storage type (from version 2), shape, device, type,
        values."""
        what = f"array {index}"
        (magic,) = self.unpack("<I", what)
        if magic not in _DENSE_MAGICS:
            raise MXNetFileError(f"{what} has an unknown format (magic number {magic:#x})")
        if magic != _DENSE_MAGICS[0]:
            (storage,) = self.unpack("<i", what)
            if storage != _DENSE_STORAGE:
                raise MXNetFileError(
                    f"{what} is sparse (storage type {storage}); dense is expected"
                )
        (dimensions,) = self.unpack("<i", what)
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise MXNetFileError(f"{what} claims {dimensions} dimensions")
        shape = self.unpack(f"<{dimensions}q", what)
        _device, _device_index, type_code = self.unpack("<iii", what)
        if type_code not in _DTYPES:
            raise MXNetFileError(
                f"{what} has element type {type_code}; 0, 1 or 2 (32, 64, 16 bit floats) expected"
            )
        if min(shape) < 1:
            raise MXNetFileError(f"{what} has shape {shape}")
        dtype = np.dtype(_DTYPES[type_code])
        values = np.frombuffer(self.take(math.prod(shape) * dtype.itemsize, what), dtype)
        return values.reshape(shape).astype(dtype.newbyteorder("="))

    def name(self, index: int) -> str:
        what = f"name {index}"
        (length,) = self.unpack("<Q", what)
        try:
            return str(self.take(int(length), what), "utf-8")
        except UnicodeDecodeError:
            raise MXNetFileError(f"{what} is not UTF-8") from None


def expected_shapes(variant: Variant) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The arrays in the released file of a variant.

    Returns:
        MXNet name to (name in the Detectron2 model, shape). ``conv8_weight`` belongs to a layer,
        ``conv8_2_score_weight`` to the branch on that layer.
    """
    convs: dict[str, tuple[str, tuple[int, ...]]] = {}
    in_channels = 3
    for number, width in enumerate(variant.widths, start=1):
        convs[f"conv{number}"] = (f"backbone.conv{number}", (width, in_channels, 3, 3))
        in_channels = width
    hidden = variant.branch_channels
    for branch in variant.branches:
        source, target = f"conv{branch.tap[1:]}", f"head.{branch.tap}"
        convs[f"{source}_1"] = (f"{target}.shared", (hidden, branch.channels, 1, 1))
        convs[f"{source}_2_score"] = (f"{target}.score_hidden", (hidden, hidden, 1, 1))
        convs[f"{source}_3_score"] = (f"{target}.score", (2, hidden, 1, 1))
        convs[f"{source}_2_bbox"] = (f"{target}.box_hidden", (hidden, hidden, 1, 1))
        convs[f"{source}_3_bbox"] = (f"{target}.box", (4, hidden, 1, 1))
    shapes = {}
    for source, (target, shape) in convs.items():
        shapes[f"arg:{source}_weight"] = (f"{target}.weight", shape)
        shapes[f"arg:{source}_bias"] = (f"{target}.bias", shape[:1])
    return shapes


@dataclass(frozen=True)
class Conversion:
    """Weights under the names of the Detectron2 model.

    Attributes:
        weights: parameter name to float32 array.
        missing: parameters of the variant that are not in the file (partial conversion only).
        unused: arrays in the file that the variant does not have (partial conversion only).
    """

    weights: dict[str, NDArray[np.float32]]
    missing: tuple[str, ...]
    unused: tuple[str, ...]


def convert_names(
    arrays: dict[str, NDArray[np.floating]], variant: Variant, *, partial: bool = False
) -> Conversion:
    """Renames released weights and checks every name and shape against the variant.

    Args:
        arrays: the result of :func:`read_ndarrays`.
        variant: the network of the weights.
        partial: use the parameters that fit, to fine-tune a related network. By default, the file
            must contain exactly the parameters of the variant.

    Raises:
        MXNetFileError: names or shapes differ, or a value is not finite.
    """
    expected = expected_shapes(variant)
    unused = [source for source in arrays if source not in expected]
    weights, missing = {}, []
    for source, (target, shape) in expected.items():
        array = arrays.get(source)
        if array is None:
            missing.append(target)
            continue
        if array.shape != shape:
            raise MXNetFileError(
                f"{source} has shape {array.shape}, variant {variant.name} needs {shape}; these "
                "are the weights of another network"
            )
        if not np.isfinite(array).all():
            raise MXNetFileError(f"{source} has values that are not finite")
        weights[target] = array.astype(np.float32)
    if not weights or ((missing or unused) and not partial):
        raise MXNetFileError(
            f"these are not the weights of variant {variant.name}: {len(missing)} parameters are "
            f"missing ({', '.join(missing[:3])} ...) and {len(unused)} arrays are unknown "
            f"({', '.join(unused[:3])} ...)"
        )
    return Conversion(weights, tuple(missing), tuple(unused))
