"""Downloads are whole and the right file, or leave nothing under the file's name."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.file_server import FileServer, serve

from face_d2.utils.download import checksum, download, git_blob_id, verify

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve(CONTENT) as state:
        yield state


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_checksums(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    assert checksum(file) == SHA256
    blob = git_blob_id(CONTENT)
    assert checksum(file, "git-blob") == f"git-blob:{blob}"
    told = subprocess.run(["git", "hash-object", file], capture_output=True, text=True)
    if told.returncode == 0:
        assert told.stdout.strip() == blob
    # What git gives the empty file, everywhere.
    assert git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    verify(file, SHA256)
    with pytest.raises(ValueError, match=f"{file} is not the expected file.* expected sha256:00"):
        verify(file, "sha256:" + 64 * "0")
    with pytest.raises(ValueError, match="'md5': expected one of git-blob, sha256"):
        verify(file, "md5:00")


def test_a_file_is_fetched_once(server: FileServer, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "weights.bin"
    for _ in range(2):
        assert download(server.url, file, SHA256, size=len(CONTENT), quiet=True) == file
    assert file.read_bytes() == CONTENT
    assert names(file.parent) == {"weights.bin"}
    assert server.requests == [""]


def test_a_file_address(tmp_path: Path) -> None:
    (tmp_path / "there.bin").write_bytes(CONTENT)
    file = tmp_path / "here" / "weights.bin"
    download((tmp_path / "there.bin").as_uri(), file, SHA256, quiet=True)
    assert file.read_bytes() == CONTENT


def test_progress_has_the_size(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(server.url, tmp_path / "weights.bin", SHA256)
    shown = capsys.readouterr()
    assert "weights.bin: 100%" in shown.err
    assert "3.00M/3.00M" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("announce", [True, False])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_interrupted_and_continued(
    server: FileServer, tmp_path: Path, announce: bool, size: int | None
) -> None:
    file = tmp_path / "weights.bin"
    server.announce, server.breaks_after = announce, 1_000_000
    if not announce and size is None:  # nothing tells that the end is missing but the checksum
        with pytest.raises(ValueError, match="not the expected file"):
            download(server.url, file, SHA256, size=size, quiet=True)
        assert names(tmp_path) == set()
        return
    with pytest.raises(OSError, match=r"1,000,000 bytes are in .*weights.bin.part; the same call"):
        download(server.url, file, SHA256, size=size, quiet=True)
    assert names(tmp_path) == {"weights.bin.part"}
    server.breaks_after = None
    download(server.url, file, SHA256, size=size, quiet=True)
    assert file.read_bytes() == CONTENT
    assert names(tmp_path) == {"weights.bin"}
    assert server.requests == ["", "bytes=1000000-"]


def test_a_server_without_ranges_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "weights.bin.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    download(server.url, tmp_path / "weights.bin", SHA256, quiet=True)
    assert (tmp_path / "weights.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize("rest", [len(CONTENT), len(CONTENT) + 5])
def test_a_rest_as_long_as_the_file_is_thrown_away(
    server: FileServer, tmp_path: Path, size: int | None, rest: int
) -> None:
    (tmp_path / "weights.bin.part").write_bytes(bytes(rest))
    download(server.url, tmp_path / "weights.bin", SHA256, size=size, quiet=True)
    assert (tmp_path / "weights.bin").read_bytes() == CONTENT


def test_an_answer_without_the_file_names_its_address(server: FileServer, tmp_path: Path) -> None:
    server.missing = True
    with pytest.raises(OSError, match=rf"{server.url}: HTTP Error 404.*; 0 bytes are in"):
        download(server.url, tmp_path / "weights.bin", SHA256, quiet=True)
    assert not (tmp_path / "weights.bin").exists()


def test_the_rest_of_another_file_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    (tmp_path / "weights.bin.part").write_bytes(b"of an older version")
    with pytest.raises(ValueError, match="not the expected file"):
        download(server.url, file, SHA256, quiet=True)
    assert names(tmp_path) == set()
    download(server.url, file, SHA256, quiet=True)
    assert file.read_bytes() == CONTENT


def test_wrong_content(server: FileServer, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(ValueError, match=r"weights\.bin.*checksum.*nothing was kept"):
        download(server.url, tmp_path / "weights.bin", SHA256, size=len(CONTENT), quiet=True)
    assert names(tmp_path) == set()


def test_wrong_size_is_refused_before_it_is_read(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 3,000,000 bytes, expected 5: it is another file"):
        download(server.url, tmp_path / "weights.bin", SHA256, size=5, quiet=True)
    assert names(tmp_path) == set()


def test_more_than_announced_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.announce = False
    with pytest.raises(ValueError, match="more than the expected 2,000,000 bytes"):
        download(server.url, tmp_path / "weights.bin", SHA256, size=2_000_000, quiet=True)
    assert names(tmp_path) == set()


def test_a_file_that_is_there_is_checked_and_stays(server: FileServer, tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"mine")
    with pytest.raises(ValueError, match="not the expected file"):
        download(server.url, file, SHA256, quiet=True)
    assert file.read_bytes() == b"mine"
    assert server.requests == []


def test_no_network(tmp_path: Path) -> None:
    with serve(b"") as gone:
        url = gone.url
    with pytest.raises(OSError, match=r"127\.0\.0\.1.*Without a network, put the file at .*w\.bin"):
        download(url, tmp_path / "w.bin", SHA256, quiet=True)
    with pytest.raises(OSError, match="No such file"):
        download((tmp_path / "no").as_uri(), tmp_path / "w.bin", SHA256, quiet=True)
    with pytest.raises(ValueError, match="begins with https, http, file"):
        download("ftp://127.0.0.1/w.bin", tmp_path / "w.bin", SHA256)
    assert names(tmp_path) == set()


def test_several_at_once_fetch_once(server: FileServer, tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(download, server.url, file, SHA256, quiet=True)] * 4:
            assert done.result() == file
    assert server.requests == [""]


def test_a_killed_download_leaves_nothing_under_the_name(
    server: FileServer, tmp_path: Path
) -> None:
    """The process dies in the middle of the file; the next one goes on."""
    file = tmp_path / "weights.bin"
    code = f"""
import os
from face_d2.utils import download
class Dies(download.tqdm):
    def update(self, n=1):
        os._exit(9)
download.tqdm = Dies
download.download({server.url!r}, {str(file)!r}, {SHA256!r}, quiet=True)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert not file.exists()
    download(server.url, file, SHA256, quiet=True)
    assert file.read_bytes() == CONTENT
