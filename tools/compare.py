#!/usr/bin/env python
"""Compares face detectors on the same images; see ``--help`` and ``docs/compare.md``."""

import sys

from face_d2.cli.compare import main

if __name__ == "__main__":
    sys.exit(main())
