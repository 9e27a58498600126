#!/usr/bin/env python
"""Parameters, operations and times of a detector; see ``--help`` and ``docs/benchmark.md``."""

import sys

from face_d2.cli.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
