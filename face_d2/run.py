"""Runs an unmodified Detectron2 script: ``python -m face_d2.run SCRIPT [ARG ...]``.

Before the script starts, this module applies the compatibility fixes, registers everything, and
adds this project's keys to Detectron2's default config. The script can then use the data sets,
backbones and detectors of this project, on Detectron2 0.5 too. Nothing else changes: Detectron2's
own ``train_net.py`` reads data with Detectron2's mapper and ignores ``INPUT.MAPPER``.
"""

from __future__ import annotations

import os
import runpy
import sys

from face_d2.config import get_cfg
from face_d2.plugins import import_detectors

USAGE = "usage: python -m face_d2.run SCRIPT [ARG ...]"


def main(argv: list[str] | None = None) -> None:
    """Runs ``argv[0]`` as ``__main__`` with the rest as its arguments."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, file=sys.stderr)
        raise SystemExit(0 if argv else 2)
    script = argv[0]
    if not os.path.isfile(script):
        raise SystemExit(f"{USAGE}\nno such script: {script}")
    import_detectors()
    from detectron2.config import defaults

    defaults._C = get_cfg()  # the defaults of the script's get_cfg()
    sys.argv = list(argv)
    # As with `python SCRIPT`, the folder of the script comes first on the path.
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
