"""The reader of MXNet's format on files written here, and on every kind of damage."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from face_d2.cli.convert_lffd import main
from lffd_d2 import LFFDNet
from lffd_d2.convert import convert_file
from lffd_d2.head import LFFDHead
from lffd_d2.mxnet_params import (
    RELEASES,
    MXNetFileError,
    convert_names,
    expected_shapes,
    git_blob_id,
    parse_ndarrays,
    read_ndarrays,
)
from lffd_d2.variants import VARIANTS, get_variant

TYPES = {np.dtype("<f4"): 0, np.dtype("<f8"): 1, np.dtype("<f2"): 2, np.dtype("<i4"): 4}
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA


def array_bytes(
    array: NDArray[np.generic], magic: int = V2, storage: int = 0, shape: tuple[int, ...] = ()
) -> bytes:
    shape = shape or array.shape
    kind = struct.pack("<i", storage) if magic != V1 else b""
    sides = struct.pack(f"<i{len(shape)}q", len(shape), *shape)
    device_and_type = struct.pack("<iii", 1, 0, TYPES[array.dtype])
    return struct.pack("<I", magic) + kind + sides + device_and_type + array.tobytes()


def file_bytes(arrays: list[bytes], names: list[bytes]) -> bytes:
    named = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    return (
        struct.pack("<QQQ", 0x112, 0, len(arrays))
        + b"".join(arrays)
        + struct.pack("<Q", len(names))
        + named
    )


ONE = np.arange(6, dtype="<f4").reshape(2, 3)
TWO = np.linspace(-1, 1, 4, dtype="<f8")
GOOD = file_bytes([array_bytes(ONE), array_bytes(TWO)], [b"arg:one", b"arg:two"])


def variant_file(name: str) -> tuple[bytes, dict[str, NDArray[np.float32]]]:
    """A file with random weights under the released names of a variant."""
    rng = np.random.default_rng(0)
    arrays = {
        source: rng.standard_normal(shape).astype("<f4")
        for source, (_, shape) in expected_shapes(get_variant(name)).items()
    }
    names = [source.encode() for source in arrays]
    return file_bytes([array_bytes(a) for a in arrays.values()], names), arrays


def test_arrays_come_back_by_name() -> None:
    arrays = parse_ndarrays(GOOD)
    assert list(arrays) == ["arg:one", "arg:two"]
    np.testing.assert_array_equal(arrays["arg:one"], ONE)
    np.testing.assert_array_equal(arrays["arg:two"], TWO)


@pytest.mark.parametrize("magic", [V1, V2, V3])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_all_format_versions_and_float_types(magic: int, dtype: str) -> None:
    array = np.linspace(0, 1, 5).astype(dtype)
    read = parse_ndarrays(file_bytes([array_bytes(array, magic)], [b"x"]))["x"]
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b"\x80\x04\x95" + bytes(30), "not an MXNet parameter file"),  # a pickle
        (struct.pack("<QQ", 0x112, 1) + bytes(16), "not an MXNet parameter file"),
        (struct.pack("<QQQ", 0x112, 0, 2**63), "claims 9223372036854775808 arrays"),
        (file_bytes([array_bytes(ONE, magic=0xF993FA00)], [b"x"]), "unknown format"),
        (file_bytes([array_bytes(ONE, storage=1)], [b"x"]), "array 0 is sparse"),
        (file_bytes([array_bytes(ONE.astype("<i4"))], [b"x"]), "element type 4"),
        (file_bytes([array_bytes(ONE, shape=(1,) * 9)], [b"x"]), "claims 9 dimensions"),
        (file_bytes([array_bytes(ONE, shape=(2, -3))], [b"x"]), "has shape"),
        (file_bytes([array_bytes(ONE, shape=(0, 3))], [b"x"]), "has shape"),
        (file_bytes([array_bytes(ONE, shape=(2**40, 2**40))], [b"x"]), "truncated"),
        (file_bytes([array_bytes(ONE)], [b"x", b"y"]), "1 arrays but 2 names"),
        (file_bytes([array_bytes(ONE)] * 2, [b"x", b"x"]), "a name occurs twice"),
        (file_bytes([array_bytes(ONE)], [b"\xff\xfe"]), "not UTF-8"),
        (GOOD + b"\0", "1 bytes too many"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(MXNetFileError, match=message):
        parse_ndarrays(data)


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_every_truncation_is_an_error(length: int) -> None:
    with pytest.raises(MXNetFileError):
        parse_ndarrays(GOOD[:length])


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6))
def test_any_damage_is_an_error_or_gives_arrays(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for position, value in changes:
        data[position] = value
    try:
        arrays = parse_ndarrays(bytes(data))
    except MXNetFileError:
        return
    assert sum(a.nbytes for a in arrays.values()) < len(GOOD)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_error(tail: bytes) -> None:
    for data in (tail, struct.pack("<QQ", 0x112, 0) + tail):
        with contextlib.suppress(MXNetFileError):
            assert parse_ndarrays(data) == {}


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "half.params"
    path.write_bytes(GOOD[:50])
    with pytest.raises(MXNetFileError, match=r"half.params: truncated"):
        read_ndarrays(path)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_converts_and_loads(name: str, tmp_path: Path) -> None:
    data, arrays = variant_file(name)
    (tmp_path / "x.params").write_bytes(data)
    conversion = convert_file(tmp_path / "x.params", tmp_path / "x.pth", name)
    assert not conversion.missing
    assert not conversion.unused

    variant = get_variant(name)
    model = nn.Module()
    model.backbone = LFFDNet(variant)
    model.head = LFFDHead(variant.branches, variant.branch_channels)
    assert conversion.weights.keys() == model.state_dict().keys()
    DetectionCheckpointer(model).load(str(tmp_path / "x.pth"))
    tap = variant.taps[-1]
    for parameter, source in (
        (model.backbone.conv5.bias, "arg:conv5_bias"),
        (model.head[tap].shared.weight, f"arg:conv{tap[1:]}_1_weight"),
        (model.head[tap].score_hidden.weight, f"arg:conv{tap[1:]}_2_score_weight"),
        (model.head[tap].score.weight, f"arg:conv{tap[1:]}_3_score_weight"),
        (model.head[tap].box_hidden.bias, f"arg:conv{tap[1:]}_2_bbox_bias"),
        (model.head[tap].box.bias, f"arg:conv{tap[1:]}_3_bbox_bias"),
    ):
        np.testing.assert_array_equal(parameter.detach().numpy(), arrays[source])


def test_weights_of_another_network_are_refused() -> None:
    _, arrays = variant_file("17L4S")
    with pytest.raises(MXNetFileError, match=r"arg:conv15_weight has shape .* another network"):
        convert_names(arrays, get_variant("25L8S"))
    with pytest.raises(MXNetFileError, match="not the weights of variant 20L5S: 16 parameters"):
        convert_names(arrays, get_variant("20L5S"))
    with pytest.raises(MXNetFileError, match="not the weights"):
        convert_names({"arg:one": ONE}, get_variant("20L5S"), partial=True)


def test_partial_conversion_says_what_is_missing() -> None:
    _, arrays = variant_file("17L4S")
    conversion = convert_names(arrays, get_variant("20L5S"), partial=True)
    assert len(conversion.weights) == 74
    assert not conversion.unused
    stages = {name.split(".")[1] for name in conversion.missing}
    assert stages == {"conv18", "conv19", "conv20", "c20"}

    _, arrays = variant_file("20L5S")
    conversion = convert_names(arrays, get_variant("17L4S"), partial=True)
    assert not conversion.missing
    assert len(conversion.unused) == 16


def test_values_that_are_not_finite_are_refused() -> None:
    _, arrays = variant_file("16L3S-small")
    arrays["arg:conv3_bias"][0] = np.nan
    with pytest.raises(MXNetFileError, match="conv3_bias has values that are not finite"):
        convert_names(arrays, get_variant("16L3S-small"))


def test_blob_ids_are_gits() -> None:
    assert git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_id(b"what is up, doc?") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_every_released_family_is_known() -> None:
    assert {release.variant for release in RELEASES.values()} == set(VARIANTS)
    assert {release.license for release in RELEASES.values()} == {"MIT"}


def test_an_unknown_file_needs_its_variant(tmp_path: Path) -> None:
    (tmp_path / "x.params").write_bytes(GOOD)
    with pytest.raises(MXNetFileError, match=r"not one of the released files.*--variant"):
        convert_file(tmp_path / "x.params", tmp_path / "x.pth")


def test_a_file_of_another_kind_is_no_question_of_the_variant(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" * 100)
    with pytest.raises(MXNetFileError, match=r"photo\.jpg: not an MXNet parameter file"):
        convert_file(tmp_path / "photo.jpg", tmp_path / "x.pth")


def test_the_command_reports_errors_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "x.params", tmp_path / "out" / "x.pth"
    source.write_bytes(variant_file("16L3S-small")[0][:-5])
    assert main([str(source), "--variant", "16L3S-small", "--output", str(output)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {source}: truncated")
    assert not output.exists()
    assert main([str(tmp_path / "none"), "--variant", "20L5S", "--output", str(output)]) == 1
    assert "No such file" in capsys.readouterr().err
    assert main([str(source), "--variant", "20L5S", "--output", "x.bin"]) == 1
    assert "must end in .pth" in capsys.readouterr().err


def test_the_command_writes_a_detectron2_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "x.params", tmp_path / "new" / "x.pth"
    source.write_bytes(variant_file("17L4S")[0])
    command = [str(source), "--variant", "20L5S", "--partial", "--output", str(output)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "74 parameters, 1,027,544 values" in printed
    assert "missing: 16 (backbone.conv18.weight" in printed
    checkpoint = torch.load(output, weights_only=True)
    assert set(checkpoint) == {"model", "__author__"}
    assert len(checkpoint["model"]) == 74
