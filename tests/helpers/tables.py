"""Markdown tables, whatever the width of their columns."""

from __future__ import annotations

import re

__all__ = ["unpadded"]


def unpadded(table: str) -> str:
    """The text with runs of spaces as one, so that cells can be compared."""
    return re.sub(" +", " ", table)
