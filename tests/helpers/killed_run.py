"""Folders of runs that were killed."""

from __future__ import annotations

import shutil
from pathlib import Path


def leave_half(whole: Path, halves: Path) -> None:
    """Makes what ``whole``, a run of four iterations, would have left if killed after the second.

    Args:
        whole: the folder of the finished run, with a checkpoint after the second iteration.
        halves: the folder to make.
    """
    halves.mkdir()
    shutil.copy(whole / "model_0000001.pth", halves)
    (halves / "last_checkpoint").write_text("model_0000001.pth")
