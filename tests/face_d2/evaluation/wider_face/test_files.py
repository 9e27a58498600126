"""The community's text files: reading sets of them, writing them, what is wrong with them."""

from __future__ import annotations

import contextlib
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from face_d2.evaluation.wider_face.files import (
    format_detections,
    parse_detections,
    read_predictions,
    write_archive,
    write_predictions,
)
from face_d2.utils.files import replaced_file, replaced_folder

ROWS = {
    "0--Parade/a": np.array([[1.5, 2, 3, 4, 0.25], [5, 6, 7, 8, 0.5]]),
    "1--Other/b": np.zeros((0, 5)),
}


def _assert_same(found, expected=ROWS):
    assert list(found) == list(expected)
    for name, rows in expected.items():
        np.testing.assert_array_equal(found[name], rows)


@pytest.fixture
def folder(tmp_path):
    return write_predictions(ROWS, tmp_path / "predictions")


def test_folder_round_trip(folder):
    _assert_same(read_predictions(folder))
    assert (folder / "0--Parade" / "a.txt").read_text() == "a\n2\n1.5 2 3 4 0.25\n5 6 7 8 0.5\n"


def test_an_images_suffix_is_taken_off_and_nothing_else(tmp_path):
    rows = {"0--Parade/a.png": [[1, 2, 3, 4, 0.5]], "0--Parade/a 1.5": [], "0--Parade/b.JPG": []}
    again = read_predictions(write_predictions(rows, tmp_path / "found"))
    assert set(again) == {"0--Parade/a", "0--Parade/a 1.5", "0--Parade/b"}
    with pytest.raises(ValueError, match=r"'e/a' and 'e/a\.jpg' differ only in their suffix"):
        write_predictions({"e/a": [], "e/a.jpg": []}, tmp_path / "found")


def test_zip_round_trip(folder, tmp_path):
    _assert_same(read_predictions(write_archive(folder, tmp_path / "found.zip")))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar_with_folders_above_the_events(folder, tmp_path, mode):
    with tarfile.open(tmp_path / "found.tar", mode) as archive:
        archive.add(folder, "results/of/mine")
    _assert_same(read_predictions(tmp_path / "found.tar"))


def test_litter_of_archivers_is_passed_over(tmp_path):
    with zipfile.ZipFile(tmp_path / "found.zip", "w") as archive:
        archive.writestr("0--Parade/a.txt", "a\n0\n")
        archive.writestr("__MACOSX/0--Parade/._a.txt", b"\xff\xfe")
        archive.writestr("0--Parade/notes.md", "none")
    assert list(read_predictions(tmp_path / "found.zip")) == ["0--Parade/a"]


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 5), st.just(5)),
        elements=st.floats(0, 2**20, width=32),
    )
)
def test_text_carries_float32_exactly(rows):
    again = parse_detections(format_detections("e/a", rows), "a.txt")
    np.testing.assert_array_equal(again.astype(np.float32), rows)


def test_windows_line_ends_and_blank_lines_at_the_end():
    rows = parse_detections("a\r\n1\r\n1 2 3 4 0.5 \r\n\r\n", "a.txt")
    np.testing.assert_array_equal(rows, [[1, 2, 3, 4, 0.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.txt, line 2: expected"),
        ("a\n", "a.txt, line 2: expected"),
        ("a\none\n", "a.txt, line 2: expected"),
        ("a\n2\n1 2 3 4 0.5\n", "a.txt, line 2: announces 2 rows, but 1 follow"),
        ("a\n1\n1 2 3 4 0.5\n5 6 7 8 0.5\n", "announces 1 rows, but 2 follow"),
        (
            "a\n2\n1 2 3 4 0.5\n1 2 3 4\n",
            "a.txt, line 4: expected 'x y w h score', found '1 2 3 4'",
        ),
        ("a\n1\n1 2 3 4 0.5 6\n", "a.txt, line 3: expected 'x y w h score'"),
        ("a\n1\n1 2 3 x 0.5\n", "a.txt, line 3: expected 'x y w h score'"),
        (f"a\n1\n{'1 ' * 500}\n", r"found '(1 ){40}'\.\.\."),
        (
            "a\n2\n1 2 3 4 0.5\n1 2 3 4 nan\n",
            r"a.txt, row 2 \(line 4\): a number that is not finite",
        ),
        ("a\n1\n1 2 3 4 inf\n", r"row 1 \(line 3\): a number that is not finite"),
        ("a\n1\n1 2 -3 4 0.5\n", r"row 1 \(line 3\): a negative width or height in '1 2 -3 4 0.5'"),
    ],
)
def test_malformed_text_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        parse_detections(text, "a.txt")


def test_what_is_no_set_of_predictions_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder or archive"):
        read_predictions(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no EVENT/NAME\.txt"):
        read_predictions(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="neither a folder nor"):
        read_predictions(tmp_path / "notes.txt")
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        archive.writestr("a.txt", "a\n0\n")
    with pytest.raises(ValueError, match=r"a\.txt lies in no event folder"):
        read_predictions(tmp_path / "flat.zip")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("one/0--Parade/a.txt", "a\n0\n")
        archive.writestr("two/0--Parade/a.txt", "a\n0\n")
    with pytest.raises(ValueError, match=r"0--Parade/a\.txt is there twice"):
        read_predictions(tmp_path / "twice.zip")
    with zipfile.ZipFile(tmp_path / "binary.zip", "w") as archive:
        archive.writestr("0--Parade/a.txt", b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"0--Parade/a\.txt is not a text file"):
        read_predictions(tmp_path / "binary.zip")


def test_a_text_that_is_no_prediction_is_named(folder):
    (folder / "README.txt").write_text("These are mine.")
    with pytest.raises(ValueError, match=r"README\.txt, line 2: .* holds no other \.txt file"):
        read_predictions(folder)


def test_nothing_is_written_outside_the_folder(tmp_path):
    with pytest.raises(ValueError, match=r"'\.\./a': expected 'event/name'"):
        write_predictions({"../a": []}, tmp_path / "predictions")
    with pytest.raises(ValueError, match="'/a': expected 'event/name'"):
        write_predictions({"/a": []}, tmp_path / "predictions")
    with pytest.raises(ValueError, match="'a': expected 'event/name'"):
        write_predictions({"a": []}, tmp_path / "predictions")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole_or_not_at_all(folder):
    with contextlib.suppress(RuntimeError), replaced_folder(folder) as fresh:
        (fresh / "half").touch()
        raise RuntimeError
    _assert_same(read_predictions(folder))
    write_predictions({"2--New/c": []}, folder)
    assert list(read_predictions(folder)) == ["2--New/c"]
    assert [path.name for path in folder.parent.iterdir()] == ["predictions"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with contextlib.suppress(RuntimeError), replaced_file(path) as fresh:
        fresh.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with replaced_file(path) as fresh:
        fresh.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
