"""Ablation suites: their rows, runs and reports."""
