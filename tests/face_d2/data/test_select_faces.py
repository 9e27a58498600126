"""Keeping the faces of one kind."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.label_files import write_pictures

from face_d2.data.labels import read_labels


@pytest.fixture(scope="module")
def main(repo: Path) -> Callable[[list[str]], int]:
    """The script's entry point."""
    return runpy.run_path(str(repo / "datasets" / "select_faces.py"))["main"]


@pytest.fixture
def profiles(tmp_path: Path) -> str:
    """Three pictures of two faces; in the first two, one face is in profile."""
    names = list(write_pictures(tmp_path, 3))
    lines = []
    for number, name in enumerate(names):
        rows = ["5 5 20 20 0 0 0 0 0 0", f"40 5 20 20 0 0 0 0 0 {int(number < 2)}"]
        lines += [name, "3", *rows, "70 5 6 6 0 0 0 0 0 1"]  # too small
    (tmp_path / "all.txt").write_text("\n".join(lines) + "\n")
    return f"wider:{tmp_path / 'all.txt'}:{tmp_path / 'images'}"


def test_other_faces_are_ignored_and_pictures_without_one_left_out(
    profiles: str, tmp_path: Path, main: Callable[[list[str]], int]
) -> None:
    target = tmp_path / "new" / "profile.txt"
    main([profiles, str(target), "--where", "pose=1"])
    labels = read_labels(f"wider:{target}:{tmp_path / 'images'}")
    assert len(labels.images) == 2
    for image in labels.images:
        assert image.boxes[~image.ignored].tolist() == [[40, 5, 20, 20]]
        assert len(image.boxes) == 3
    main([profiles, str(target), "--where", "pose=1", "--count", "1"])
    assert len(read_labels(f"wider:{target}:{tmp_path / 'images'}").images) == 1


def test_an_attribute_that_no_face_has_is_an_error(
    profiles: str,
    tmp_path: Path,
    main: Callable[[list[str]], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([profiles, str(tmp_path / "x.txt"), "--where", "blur=2"]) == 1
    assert "no face has this attribute" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([profiles, str(tmp_path / "x.txt"), "--where", "beard=1"])
