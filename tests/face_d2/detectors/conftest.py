"""Files of other people's detectors, where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def detector_file() -> Callable[[str], Path]:
    """A file of ``$FACE_D2_TEST_DETECTORS`` by its name; skips where it is not there."""

    def find(name: str) -> Path:
        folder = os.environ.get("FACE_D2_TEST_DETECTORS")
        if not folder:
            pytest.skip("FACE_D2_TEST_DETECTORS is not set: it names a folder of ONNX files")
        path = Path(folder) / name
        if not path.is_file():
            pytest.skip(f"{path}: not there")
        return path

    return find
