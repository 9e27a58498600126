#!/usr/bin/env python
"""Convert released LFFD weights (MXNet .params) into a Detectron2 checkpoint; see --help."""

import sys

from face_d2.cli.convert_lffd import main

if __name__ == "__main__":
    sys.exit(main())
