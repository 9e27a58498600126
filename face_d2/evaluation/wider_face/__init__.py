"""The WIDER FACE protocol. It needs NumPy and SciPy, neither torch nor Detectron2."""
