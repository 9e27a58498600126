"""Boxes, suppression, tiling, sizes and the spec of a network: NumPy only, and nothing of this
project outside this folder.
"""
