"""One of two processes dies: the run ends, soon, with what that process had to say."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.train_script import write_train_script

BOUND = 180  # seconds; starting takes most of it. A peer alone would wait half an hour.

DEATHS = {
    "raises": "raise ArithmeticError('the disk is on fire')",
    "raises at the end": "raise ArithmeticError('the disk is on fire')",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "loses its parent": "os.kill(os.getppid(), signal.SIGKILL)",
    "loses its loader": "os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)",
}
# Each starts three processes.
SHORT = (("raises at the end", 0), ("is killed", 1), ("loses its parent", 1))


@pytest.mark.parametrize(
    ("death", "mortal"),
    [
        pytest.param(death, mortal, marks=() if (death, mortal) in SHORT else pytest.mark.long)
        for death in DEATHS
        for mortal in (0, 1)
    ],
)
def test_a_dying_process_ends_the_run(
    words: Callable[..., list[str]], small_set: Path, tmp_path: Path, death: str, mortal: int
) -> None:
    at = 3 if death == "raises at the end" else 1
    script = write_train_script(
        tmp_path,
        small_set,
        "import multiprocessing, os, signal\n"
        "from detectron2.utils import comm\n"
        "from face_d2.engine.trainer import FaceTrainer\n"
        "plain = FaceTrainer.run_step\n"
        "def run_step(self):\n"
        f"    if self.iter == {at} and comm.get_rank() == {mortal}:\n"
        f"        {DEATHS[death]}\n"
        "    plain(self)\n"
        "FaceTrainer.run_step = run_step\n",
    )
    line = words(
        *("DATALOADER.NUM_WORKERS", int("loader" in death)), flags=("--num-processes", "2")
    )
    code, said = run_bounded([sys.executable, "-W", "ignore", str(script), *line])
    if death == "loses its parent":
        assert code == -signal.SIGKILL
        return
    assert code == 1
    assert f"rocess {mortal} terminated with" in said
    last = said[said.rindex("Traceback (most recent call last)") :]
    if death.startswith("raises"):
        assert "in run_step" in last
        assert "ArithmeticError: the disk is on fire" in last
    elif death == "is killed":
        assert "signal SIGKILL" in last
    else:
        # Met while waiting for a batch, or, by a signal, anywhere else.
        assert "face_d2/engine/loader.py" in last or "DataLoader worker" in last


def run_bounded(command: list[str]) -> tuple[int, str]:
    """Exit status and stderr of a program, when it and all it started have ended in time."""
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            # Ends when the last process has closed its stderr.
            said = program.communicate(timeout=BOUND)[1]
            return program.returncode, said
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
