#!/usr/bin/env python
"""Tells which faces of a data set a config can learn, before it is trained; see --help."""

import sys

from face_d2.cli.evaluate import coverage_main

if __name__ == "__main__":
    sys.exit(coverage_main())
