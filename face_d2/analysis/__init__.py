"""Experiments about detectors: ablations, benchmarks, coverage, cost."""
