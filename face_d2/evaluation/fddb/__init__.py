"""The FDDB protocol, with NumPy and SciPy only; torch and Detectron2 are not needed."""
