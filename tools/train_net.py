#!/usr/bin/env python
"""Trains or evaluates a config; see ``--help`` and ``face_d2/train_net.py``."""

from face_d2.train_net import main

if __name__ == "__main__":
    main()
