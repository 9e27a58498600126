#!/usr/bin/env python
"""Finds damaged images and wrong boxes in a data set, before training does; see --help."""

import sys

from face_d2.cli.check_dataset import main

if __name__ == "__main__":
    sys.exit(main())
