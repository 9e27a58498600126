#!/usr/bin/env python
"""Trains a suite of configs with several seeds and tabulates them; see --help."""

import sys

from face_d2.cli.ablate import main

if __name__ == "__main__":
    sys.exit(main())
