"""A training as a program of its own, for tests that start, stop or kill processes."""

from __future__ import annotations

from pathlib import Path

_SCRIPT = """
import sys
from face_d2 import train_net
from face_d2.data.register import register_wider_face
for split in ("train", "val"):
    register_wider_face(
        f"small_{{split}}",
        f"{root}/WIDER_{{split}}/images",
        f"{root}/wider_face_split/wider_face_{{split}}_bbx_gt.txt",
    )
{changes}
if __name__ == "__main__":
    train_net.main(sys.argv[1:])
"""


def write_train_script(folder: Path, small_set: Path, changes: str = "") -> Path:
    """Writes ``train.py``, which takes train_net's words and knows the sets of ``small_set``.

    Args:
        folder: where to write it.
        small_set: the fixture's folder.
        changes: Python code that runs before the training, in every process.
    """
    script = folder / "train.py"
    script.write_text(_SCRIPT.format(root=small_set, changes=changes))
    return script
