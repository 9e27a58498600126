"""Compares face detectors on the same images under one protocol and writes one page."""
