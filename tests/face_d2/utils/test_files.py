from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from face_d2.utils.files import replaced_file, writing


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, as Linux has it")
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"), writing(file):
        Path("/dev/full").write_text("a")
    with pytest.raises(OSError, match=r"a\.txt'"), replaced_file(file):
        Path("/dev/full").write_text("a")
    full = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 9")
    with pytest.raises(OSError, match=r"a\.txt: cannot be written; is the disk"), writing(file):
        raise full
    with pytest.raises(RuntimeError, match="other"), writing(file):
        raise RuntimeError("other")
