#!/usr/bin/env python
"""Trains a suite of configs with several seeds and tabulates them; see --help."""

from face_d2.engine.ablation_command import main

if __name__ == "__main__":
    main()
