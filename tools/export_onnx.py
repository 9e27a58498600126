#!/usr/bin/env python
"""Writes a detector as an ONNX file; see ``--help`` and ``docs/export.md``."""

import sys

from face_d2.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
