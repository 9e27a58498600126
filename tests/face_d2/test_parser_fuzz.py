"""Damaged annotation and prediction files: read, or refused with an error that names the file."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from face_d2.data.fddb import read_fold
from face_d2.data.wider_face import read_annotations, read_file_list
from face_d2.evaluation.fddb.files import read_fddb_detections
from face_d2.evaluation.wider_face.files import read_predictions

WIDER = """0--Parade/a.jpg
2
10 20 30 40 0 0 0 0 0 0
50 60 7 8 2 1 1 1 2 1
0--Parade/b.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/c.jpg
1
1 2 3 4 0 0 0 0 0 0
"""
FOLD = """2002/08/11/big/img_591
1
123.583300 85.549500 1.265839 269.693400 161.781200  1
2002/08/26/big/img_265
2
67.363819 44.511485 -1.476417 105.249970 87.209036  1
41.936870 27.064477 1.471906 184.070915 129.345601  1
"""
LIST = "0--Parade/a.jpg\n1--Handshaking/c.jpg\n"
FOUND = "a\n2\n1.5 2.5 30 40 0.9\n5 6 7 8 0.25\n"
FDDB_FOUND = "2002/08/11/big/img_591\n1\n1 2 3 4 0.5\n2002/08/26/big/img_265\n0\n"

PARSERS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "annotations": (WIDER, "bbx_gt.txt", read_annotations),
    "file list": (LIST, "list.txt", read_file_list),
    "fold": (FOLD, "fold.txt", read_fold),
    "predictions": (FOUND, "0--Parade/a.txt", lambda path: read_predictions(path.parent.parent)),
    "FDDB detections": (
        FDDB_FOUND,
        "found.txt",
        lambda path: read_fddb_detections(
            path, ["2002/08/11/big/img_591", "2002/08/26/big/img_265"]
        ),
    ),
}
_NASTY = [
    "999999999",
    "9" * 5000,
    "-1",
    "nan",
    "inf",
    "1e308",
    "1e-400",
    "\0",
    "\n",
    "\r",
    "²",
    "٣",
]
_NASTY += ["..", "../../etc/passwd", "a/b.jpg", "-0", "0x10", "1_0", "\ud7ff", "\x85", " ", "\x1c"]

mutations = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.floats(0, 0.3),
        st.one_of(
            st.sampled_from([text.encode() for text in _NASTY]),
            st.binary(max_size=8),
            st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass")),
            st.floats(0, 1),  # a copy of another part
        ),
    ),
    min_size=1,
    max_size=6,
)


def mutate(text: str, changes: list[tuple[float, float, bytes | float]]) -> bytes:
    """Each change puts something in place of a part of the text."""
    data = text.encode()
    for where, length, new in changes:
        start = round(where * len(data))
        end = start + round(length * len(data))
        if isinstance(new, float):
            at = round(new * len(data))
            new = data[at : at + end - start + 20]
        data = data[:start] + new + data[end:]
    return data


def read_or_refuse(kind: str, data: bytes, folder: Path) -> bool:
    """Whether the damaged file was read; fails on any error but one that names the file."""
    _, name, parser = PARSERS[kind]
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    refusal = None
    try:
        parser(path)
    except ValueError as error:
        refusal = str(error)
    assert refusal is None or str(folder) in refusal, refusal
    return refusal is None


@pytest.mark.parametrize("kind", PARSERS)
def test_the_undamaged_file_is_read(kind: str, tmp_path: Path) -> None:
    assert read_or_refuse(kind, PARSERS[kind][0].encode(), tmp_path)


@pytest.mark.parametrize(
    "examples", [300, pytest.param(20_000, marks=pytest.mark.long)], ids=["short", "long"]
)
@pytest.mark.parametrize("kind", PARSERS)
def test_damage_is_read_or_refused(kind: str, examples: int, tmp_path: Path) -> None:
    @settings(
        max_examples=examples, deadline=2000, suppress_health_check=list(HealthCheck), database=None
    )
    @given(changes=mutations)
    def check(changes: list[tuple[float, float, bytes | float]]) -> None:
        read_or_refuse(kind, mutate(PARSERS[kind][0], changes), tmp_path)

    check()


@pytest.mark.parametrize("kind", PARSERS)
def test_a_huge_count_reserves_no_memory(kind: str, tmp_path: Path) -> None:
    lines = PARSERS[kind][0].split("\n")
    lines[1] = "900000000"
    tracemalloc.start()
    try:
        assert not read_or_refuse(kind, "\n".join(lines).encode(), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
