"""The FDDB protocol. It needs NumPy and SciPy, neither torch nor Detectron2."""
