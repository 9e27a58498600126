#!/usr/bin/env python
"""Tells which faces of a data set a config can answer for, before it is trained; see --help."""

from face_d2.cli.evaluate import coverage_main

if __name__ == "__main__":
    coverage_main()
