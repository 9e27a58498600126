"""Figures of evaluation results."""
