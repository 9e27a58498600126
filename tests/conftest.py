"""What all tests share."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch

# Tests neither use nor fill the user's cache; the data sets' paths are taken when registered.
_CACHE = tempfile.TemporaryDirectory(prefix="face-d2-tests-")
os.environ["FACE_D2_CACHE"] = _CACHE.name

# Tests press Ctrl-C, which a suite that a shell started in the background would ignore.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine may take any time for an example.
hypothesis.settings.register_profile("face_d2", deadline=None)
hypothesis.settings.load_profile("face_d2")

import face_d2.register  # noqa: E402  (mends Detectron2 before test modules import it)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device is available")


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of third-party data (photographs, official files); skips where there is none."""
    folder = os.environ.get("FACE_D2_TEST_DATA")
    if not folder:
        pytest.skip("FACE_D2_TEST_DATA is not set: it names the folder of third-party test data")
    return Path(folder)
