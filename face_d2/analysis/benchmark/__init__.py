"""What detectors cost: ``tools/benchmark.py``."""
