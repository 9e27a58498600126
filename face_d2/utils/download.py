"""Files from the network that are whole and the right ones, or not there at all."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import portalocker
from tqdm import tqdm

from face_d2.utils.files import replaced_file

__all__ = ["checksum", "download", "git_blob_id", "verify"]

#: Kinds of checksum: that of a git object, for files known by their place in a repository.
_KINDS = ("git-blob", "sha256")
_SCHEMES = ("https", "http", "file")
_CHUNK = 1 << 20
_TIMEOUT_S = 60
#: Nothing of unknown size may fill a disk.
_MOST_BYTES = 4 << 30


def git_blob_id(data: bytes) -> str:
    """The id git gives a file with this content (``git hash-object``)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def checksum(file: str | Path, kind: str = "sha256") -> str:
    """Checksum of a file as ``"<kind>:<hex digits>"``.

    Args:
        file: what to read.
        kind: "sha256" or "git-blob" (see :func:`git_blob_id`).

    Raises:
        ValueError: the kind is another.
        OSError: the file cannot be read.
    """
    if kind not in _KINDS:
        raise ValueError(f"checksum of kind {kind!r}: expected one of {', '.join(_KINDS)}")
    with open(file, "rb") as stream:
        if kind == "git-blob":
            digest = hashlib.sha1(usedforsecurity=False)
            digest.update(b"blob %d\0" % os.fstat(stream.fileno()).st_size)
        else:
            digest = hashlib.sha256()
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return f"{kind}:{digest.hexdigest()}"


def verify(file: str | Path, expected: str) -> None:
    """Checks a file against ``"<kind>:<hex digits>"``.

    Raises:
        ValueError: it is another file, or the expected checksum is of no known kind.
        OSError: it cannot be read.
    """
    found = checksum(file, expected.partition(":")[0])
    if found != expected:
        raise ValueError(
            f"{file} is not the file that is wanted: its checksum is {found}, expected {expected}"
        )


def download(
    url: str, file: str | Path, expected: str, *, size: int | None = None, quiet: bool = False
) -> Path:
    """Fetches a file once; what carries its name is whole and has its checksum, at any moment.

    What arrived of an interrupted download stays beside it as ``<name>.part``, and the next call
    goes on from there where the server can, else begins anew. Processes that want the same file
    wait for the one that fetches it.

    Args:
        url: http, https or file.
        file: where to put it; one that is there is checked and kept.
        expected: its checksum, see :func:`verify`.
        size: its bytes, where known: an answer of another length is refused before it is read.
        quiet: no progress bar on standard error.

    Returns:
        ``file``.

    Raises:
        ValueError: the address is of another kind, or what arrived is not the file that is wanted
            (nothing of it is kept).
        OSError: the network or the disk failed; the address and the file are named.
    """
    file = Path(file)
    if urlsplit(url).scheme not in _SCHEMES:
        raise ValueError(f"{url}: expected an address that begins with {', '.join(_SCHEMES)}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with portalocker.Lock(file.with_name(f"{file.name}.lock"), mode="a", timeout=3600):
        if file.exists():
            verify(file, expected)
            return file
        part = file.with_name(f"{file.name}.part")
        try:
            _fetch(url, part, size, quiet)
        except (HTTPException, urllib.error.URLError, OSError) as error:
            there = part.stat().st_size if part.exists() else 0
            raise OSError(
                f"{url}: {error}; {there:,} bytes are in {part}, the same call goes on from there. "
                f"Without a network, put the file at {file} yourself"
            ) from error
        try:
            verify(part, expected)
        except ValueError as error:
            part.unlink()
            raise ValueError(f"{url}: {error}; nothing was kept") from None
        with replaced_file(file) as temporary:
            os.replace(part, temporary)
    return file


def _fetch(url: str, part: Path, size: int | None, quiet: bool) -> None:
    """Appends to ``part`` what it lacks; ends only when the server has sent all it announced."""
    there = part.stat().st_size if part.exists() else 0
    if size is not None and there >= size:
        there = 0  # of another file, or complete and wrong
    answer = _open(url, there)
    with answer:
        if there and not _continues(answer, there):
            there = 0
        total = _total(answer, there)
        if size is not None and total not in (None, size):
            part.unlink(missing_ok=True)
            raise ValueError(f"{url} has {total:,} bytes, expected {size:,}: it is another file")
        most = size or total or _MOST_BYTES
        with (
            open(part, "ab" if there else "wb") as stream,
            tqdm(
                desc=part.stem,
                total=size or total,
                initial=there,
                unit="B",
                unit_scale=True,
                disable=quiet,
            ) as progress,
        ):
            while chunk := answer.read(_CHUNK):
                there += len(chunk)
                if there > most:
                    break
                stream.write(chunk)
                progress.update(len(chunk))
    if there > most:
        part.unlink()
        raise ValueError(f"{url} has more than the expected {most:,} bytes: it is another file")
    if there < (size or total or 0):
        raise OSError(f"the connection ended after {there:,} of {size or total:,} bytes")


def _open(url: str, there: int) -> HTTPResponse:
    headers = {"User-Agent": "face-d2", "Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    try:
        return urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and there:  # no such range: what is there is not of this file
            error.close()
            return _open(url, 0)
        raise


def _continues(answer: HTTPResponse, there: int) -> bool:
    """Whether the server sends what follows the first ``there`` bytes, and not the whole."""
    begins = f"bytes {there}-"
    return answer.status == 206 and answer.headers.get("Content-Range", "").startswith(begins)


def _total(answer: HTTPResponse, there: int) -> int | None:
    """Bytes of the whole file, by what the server announces."""
    whole = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    if whole and there:
        return int(whole[1])
    rest = answer.headers.get("Content-Length")
    return there + int(rest) if rest is not None and rest.isdigit() else None
