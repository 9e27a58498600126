#!/usr/bin/env python
"""Trains or evaluates a config, or trains on your own pictures; see ``--help``."""

import sys

from face_d2.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
