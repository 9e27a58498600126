#!/usr/bin/env python
"""Scores a detector on FDDB from text files of detections; see --help."""

import sys

from face_d2.cli.evaluate import fddb_main

if __name__ == "__main__":
    sys.exit(fddb_main())
