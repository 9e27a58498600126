"""Plots and contact sheets of evaluation results."""
