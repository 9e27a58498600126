"""Recognizes common wrong files, such as Git LFS pointers, for error messages."""

from __future__ import annotations

import os

__all__ = ["known_mistake"]

_HEAD = 512


def known_mistake(path: str | os.PathLike[str]) -> str:
    """Describes a file that is empty, a Git LFS pointer, a web page or UTF-16 text; else ""."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    if not head:
        return "the file is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is UTF-16 text; save it as UTF-8"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, not the file; download the file that the page links to"
    return ""
