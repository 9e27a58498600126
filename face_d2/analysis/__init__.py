"""Experiments about detectors."""
