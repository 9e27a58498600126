#!/usr/bin/env python
"""Weights by the name of their config; see ``--help`` and ``docs/model_zoo.md``."""

import sys

from face_d2.cli.model_zoo import main

if __name__ == "__main__":
    sys.exit(main())
