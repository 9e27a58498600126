#!/usr/bin/env python
"""Print an LFFD's branches and draw its receptive fields; see --help."""

import sys

from face_d2.cli.receptive_fields import main

if __name__ == "__main__":
    sys.exit(main())
