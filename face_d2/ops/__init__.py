"""NMS, tiling, resizing and the spec of a network; imports NumPy only and nothing else of this
project.
"""
