"""An exported network that several tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from face_d2 import FaceDetector


@pytest.fixture(scope="session")
def released_onnx(released: FaceDetector, released_weights: Path) -> Path:
    """The released head detector as a float file."""
    from face_d2.export.onnx_file import export_onnx  # the modules that use it ask for onnx first

    path = released_weights.with_suffix(".onnx")
    backend: Any = released.backend
    export_onnx(
        backend.model,
        path,
        size_rule=backend.spec.size_rule,
        config="lffd_17L4S",
        weights=released_weights,
    )
    return path
