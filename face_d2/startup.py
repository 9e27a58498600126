"""``python -m face_d2.startup`` lets Detectron2 be imported before this project.

Detectron2 0.5 and 0.6 cannot be imported with current versions of NumPy and Pillow, or without
their compiled operators, unless :mod:`face_d2.compat` has prepared them; tools that sort imports
put ``detectron2`` first. This command adds a file to the environment's ``site-packages`` with one
line that Python runs when it starts. The line prepares Detectron2 when a program imports it, and
does nothing where this project is not installed any more. ``make install`` runs the command;
``python -m face_d2.startup --remove`` removes the file.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

__all__ = ["main"]

_FILE = "face_d2_detectron2.pth"
# The current folder is not on sys.path yet, so another folder named face_d2 may be found; a program
# must be able to import the right one afterwards.
_LINE = (
    r"import sys; exec('try:\n from face_d2.compat import prepare_at_first_import as prepare\n"
    r"except ImportError: [sys.modules.pop(n) for n in [*sys.modules] if n.split(\".\")[0] == "
    r"\"face_d2\"]\nelse: prepare()')"
)


def main(words: list[str]) -> int:
    """Adds the file, or removes it (``--remove``); returns the exit status."""
    file = Path(sysconfig.get_path("purelib")) / _FILE
    if words == ["--remove"]:
        file.unlink(missing_ok=True)
    elif not words:
        file.write_text(f"{_LINE}\n", encoding="utf-8")
        print(f"{file}: Detectron2 can be imported before this project")
    else:
        print("usage: python -m face_d2.startup [--remove]", file=sys.stderr)
    return 0 if words in ([], ["--remove"]) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
