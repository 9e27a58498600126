#!/usr/bin/env python
"""Finds faces in images and videos; see ``--help`` and ``docs/predict.md``."""

import sys

from face_d2.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
