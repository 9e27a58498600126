from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from face_d2.utils.files import replaced_file


def half(file: Path) -> None:
    with replaced_file(file) as temporary:
        temporary.write_text("half")
        raise OSError("full")


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    for content in ("one", "two"):
        with replaced_file(file) as temporary:
            temporary.write_text(content)
            assert not file.exists() or file.read_text() == "one"
        assert file.read_text() == content
    with pytest.raises(OSError, match="full"):
        half(file)
    assert [p.name for p in file.parent.iterdir()] == ["a.txt"]
    assert file.read_text() == "two"


def test_a_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "a.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    with replaced_file(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """As /dev/stdout is; in its place a file would come where the system's own was."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        with replaced_file(pipe) as same:
            same.write_text("content")
        assert read.result(60) == "content"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
