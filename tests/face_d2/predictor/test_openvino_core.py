"""Detectors in OpenVINO come and go without harm to the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("openvino", reason="the extra [openvino] is not installed")

CODE = """
import faulthandler, gc, os, signal, sys
import numpy as np
from face_d2 import FaceDetector

faulthandler.enable()  # gives the thread a stack for signals, as a test runner does
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
detectors = [FaceDetector.from_onnx(sys.argv[1], runtime="openvino") for _ in range(2)]
for detector in detectors:
    detector.detect(np.zeros((64, 64, 3), np.uint8))
del detector
while detectors:
    del detectors[0]
    gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_arrive_after_two_detectors(tiny_onnx: dict[str, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tiny_onnx["lffd"])], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
