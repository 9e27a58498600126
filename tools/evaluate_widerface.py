#!/usr/bin/env python
"""Scores a detector on WIDER FACE from text files of detections; see --help."""

import sys

from face_d2.cli.evaluate import widerface_main

if __name__ == "__main__":
    sys.exit(widerface_main())
