"""Runs a stock Detectron2 script unmodified: ``python -m face_d2.run SCRIPT [ARG ...]``.

The compatibility layer and every registration happen first, and Detectron2's default config gets
this project's keys, so that a script which knows nothing of this project finds its data sets,
backbones and detectors, on Detectron2 0.5 too. The script stays what it is: Detectron2's own
``train_net.py`` reads its data with Detectron2's mapper, whatever ``INPUT.MAPPER`` says.
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

    defaults._C = get_cfg()  # what the script's own get_cfg() starts from
    sys.argv = list(argv)
    # As `python SCRIPT` does: the script's neighbours come first on the path.
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
