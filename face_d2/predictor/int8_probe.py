"""Checks whether a runtime computes int8 sums exactly on this processor."""

from __future__ import annotations

import base64
import functools
import tempfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face_d2.predictor.runtimes import open_graph

__all__ = ["int8_sums_saturate", "probe_sums"]

#: An ONNX file with a 1 x 1 convolution of bytes (1, 16, 8, 8); all weights are 127, and sums are
#: divided by 4096. ``tests/face_d2/predictor/test_int8_probe.py`` builds it.
_PROBE = (
    "eNrj4LDayMqlzsWamZuYnsrFnJ+XysVSlVqUL8RYoSTgklpYmphXklmV6pOZl5pYxOXGxV6empmeUVLMxQNhxBcnJ+ak"
    "cnFDeRCt5Zhatbi5WBIrMoslGBYwMnHxczFWcDGWCzFWKrE45+eVcalyMVZysRSXpBZArWcpLs0tVuILRDFEiLWgKD8p"
    "VYtXgNEJ5FQvFgaGBnstbgEmJ7AuL0YGrWlMHAJAyMjBKMDsBHOtVwNT/QgHWiEcAsBgQ4k2LwdQ+FGCtZSBpjI7IUe/"
    "lwADGtDiA1oMjlxwhLlGyUPTm5AYlwgHk5AAFxMHIxCDaA4QTpLjAsc/LnknFi4GAUEARH/iYw=="
)
#: The output for activations of 255: 16 x 255 x 127 / 4096.
_EXACT_SUM = 127


@functools.cache
def int8_sums_saturate(runtime: str) -> bool:
    """Whether int8 products are summed in 16 bits, which can overflow with two products.

    This happens on x86-64 processors without VNNI. The check runs a small network, because it
    depends on the kernels that the runtime (one of ``RUNTIMES``) chooses.

    Raises:
        ImportError: the runtime is not installed.
    """
    return bool((probe_sums(runtime) != _EXACT_SUM).any())


def probe_sums(runtime: str) -> NDArray[np.uint8]:
    """The output of the runtime for the probe, (1, 16, 8, 8)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        path.write_bytes(zlib.decompress(base64.b64decode(_PROBE)))
        graph = open_graph(path, runtime, threads=1)
        (sums,) = graph.run(np.full((1, 16, 8, 8), 255, np.uint8))
    return sums
