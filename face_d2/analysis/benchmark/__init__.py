"""Measures the cost of detectors: ``tools/benchmark.py``."""
