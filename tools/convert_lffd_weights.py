#!/usr/bin/env python
"""Convert released LFFD weights (MXNet .params) into a Detectron2 checkpoint; see --help."""

import sys

from lffd_d2.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
