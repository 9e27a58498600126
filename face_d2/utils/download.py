"""Verified, atomic downloads."""

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

#: Kinds of checksum. "git-blob" is for files in a git repository, whose blob id is known.
_KINDS = ("git-blob", "sha256")
_SCHEMES = ("https", "http", "file")
_CHUNK = 1 << 20
_TIMEOUT_S = 60
#: Maximum size of a download whose size is not known, so that it cannot fill the disk.
_MAX_BYTES = 4 << 30


def git_blob_id(data: bytes) -> str:
    """The id that git gives a file with this content (``git hash-object``)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def checksum(file: str | Path, kind: str = "sha256") -> str:
    """Checksum of a file as ``"<kind>:<hex digits>"``; ``kind`` is "sha256" or "git-blob".

    Raises:
        ValueError: the kind is unknown.
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
        ValueError: the checksum differs, or the kind of the expected checksum is unknown.
        OSError: the file cannot be read.
    """
    found = checksum(file, expected.partition(":")[0])
    if found != expected:
        raise ValueError(
            f"{file} is not the expected file: its checksum is {found}, expected {expected}"
        )


def download(
    url: str, file: str | Path, expected: str, *, size: int | None = None, quiet: bool = False
) -> Path:
    """Downloads a file unless it exists; it gets its name only when it is complete and verified.

    An interrupted download remains as ``<name>.part``. The next call continues it if the server
    supports this, and starts again otherwise. If several processes need the same file, one
    downloads it and the others wait.

    Args:
        url: an http, https or file address.
        file: the destination; an existing file is verified and kept.
        expected: the checksum, see :func:`verify`.
        size: size in bytes, if known; a response of another length is refused before it is read.
        quiet: show no progress bar on standard error.

    Returns:
        ``file``.

    Raises:
        ValueError: the address is of another kind, or the downloaded file is not the expected one
            (it is deleted).
        OSError: the network or the disk failed; the message names the address and the file.
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
                f"{url}: {error}; {there:,} bytes are in {part}; the same call continues. "
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
    """Appends the missing bytes to ``part``; fails if the server sends fewer than it announced."""
    there = part.stat().st_size if part.exists() else 0
    if size is not None and there >= size:
        there = 0  # it belongs to another file, or is complete and wrong
    with _open(url, there) as response:
        # The server may send the whole file instead of the bytes after the first ``there``.
        begins = response.headers.get("Content-Range", "").startswith(f"bytes {there}-")
        if response.status != 206 or not begins:
            there = 0
        total = _total(response, there)
        if size is not None and total not in (None, size):
            part.unlink(missing_ok=True)
            raise ValueError(f"{url} has {total:,} bytes, expected {size:,}: it is another file")
        most = size or total or _MAX_BYTES
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
            while chunk := response.read(_CHUNK):
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
        if error.code == 416 and there:  # invalid range: the partial file is not of this file
            error.close()
            return _open(url, 0)
        raise


def _total(response: HTTPResponse, there: int) -> int | None:
    """Size of the whole file in bytes, as announced by the server."""
    whole = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    if whole and there:
        return int(whole[1])
    rest = response.headers.get("Content-Length")
    return there + int(rest) if rest is not None and rest.isdigit() else None
