"""tools/gpu_check.py, on the CPU: all of its code but the GPU's own runs here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture
def tool(repo: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", repo / "tools" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_all_stages_run_tiny_on_the_cpu(repo: Path, tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    command = [sys.executable, "-W", "ignore", str(repo / "tools" / "gpu_check.py")]
    run = subprocess.run(
        [*command, "--device", "cpu", "--minutes", "30", "--json", str(file)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    found = result(file)
    assert json.loads(run.stdout.split("RESULT ")[1].splitlines()[0]) == found
    stages = found["stages"]
    assert set(stages) == {
        *("tests", "step/df2s2/df2s2_R50_FFP", "step/lffd/lffd_25L8S"),
        *("evaluation/lffd/lffd_25L8S", "processes"),
    }
    for name in ("df2s2/df2s2_R50_FFP", "lffd/lffd_25L8S"):
        for precision in ("float32", "bfloat16"):
            row = stages[f"step/{name}"][precision]
            assert row["batch"] == 2
            assert row["images_per_second"] == pytest.approx(2000 / row["step_ms"])
            assert f"| `{name}` | {precision} | 2 |" in run.stdout
    assert stages["processes"]["processes"] == 2
    assert len(stages["evaluation/lffd/lffd_25L8S"]["evaluation_pass"]) == 2
    assert stages["tests"]["passed"] + stages["tests"]["skipped"] == 4


def test_all_tests_that_need_a_gpu_are_run(repo: Path, tool: ModuleType) -> None:
    mark = "pytest.mark." + "cuda"
    files = {
        path.relative_to(repo).as_posix()
        for path in (repo / "tests").rglob("test_*.py")
        if mark in path.read_text()
    }
    assert files == set(tool.CUDA_TESTS)


def test_without_a_gpu_one_line_says_so(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tool.main([]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: no CUDA device is available; nothing was checked\n"


def test_the_same_command_goes_on_and_repeats_what_failed(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "check.json"
    line = ["--device", "cpu", "--json", str(file)]
    ran: list[str] = []
    results: dict[str, dict[str, Any]] = {"tests": {"error": "one failed"}}
    clock = [0.0]

    def run_stage(name: str, device: str, seconds: float) -> dict[str, Any]:
        assert seconds <= 60
        ran.append(name)
        clock[0] += 20
        return results.get(name, {"seconds": 20})

    monkeypatch.setattr(tool, "run_stage", run_stage)
    monkeypatch.setattr(tool.time, "monotonic", lambda: clock[0])
    names = list(tool.Plan("cpu").stages())
    assert tool.main([*line, "--minutes", "1"]) == 1
    assert ran == names[:3]
    results["tests"] = {"passed": 4}
    assert tool.main([*line, "--minutes", "1"]) == 0
    assert ran[3:] == [names[0], *names[3:]]
    assert result(file)["stages"]["tests"] == {"passed": 4}
    ran.clear()
    assert tool.main(line) == 0
    assert ran == []
    results[names[-1]] = {"error": "the last one failed"}
    assert tool.main([*line, "--fresh", "--minutes", "1"]) == 1
    assert tool.main([*line, "--minutes", "1"]) == 1


def test_figures_of_another_environment_are_not_gone_on_with(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "check.json"
    ran: list[str] = []
    monkeypatch.setattr(tool, "run_stage", lambda name, *_: ran.append(name) or {})
    assert tool.main(["--device", "cpu", "--json", str(file)]) == 0
    other = result(file)
    other["environment"]["torch"] = "1.0"
    file.write_text(json.dumps(other))
    assert tool.main(["--device", "cpu", "--json", str(file)]) == 0
    assert len(ran) == 2 * len(tool.Plan("cpu").stages())


def test_a_stage_that_hangs_or_breaks_is_an_error_of_its_own(
    tool: ModuleType, tmp_path: Path
) -> None:
    hung = tool.run_stage("tests", "cpu", 0.5)
    assert hung == {"error": "not finished after 0 s", "out_of_time": True}
    assert "KeyError: 'no such stage'" in tool.run_stage("no such stage", "cpu", 300)["error"]


def test_a_batch_that_does_not_fit_is_halved(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def step_of(self: Any, cfg: Any, side: int, precision: str, batch: int) -> dict[str, Any]:
        tried.append(batch)
        if batch > 8:
            raise torch.cuda.OutOfMemoryError
        return {"batch": batch}

    monkeypatch.setattr(tool.Plan, "step_of", step_of)
    assert tool.Plan("cuda").step(None, 640, "float32") == {"batch": 8}
    assert tried == [32, 16, 8]
