"""The scripts in tools/ and datasets/ have the command line style of the console scripts."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

#: Scripts that are no console script under another name.
SCRIPTS = (
    "tools/demo.py",
    "tools/gpu_check.py",
    "tools/model_cards.py",
    "tools/qa/draw_prose.py",
    "tools/qa/fuzz_labels.py",
    "tools/qa/fuzz_parsers.py",
    "tools/qa/limit_packages.py",
    "tools/qa/mutation.py",
    "tools/qa/sizes.py",
    "tools/qa/soak.py",
    "tools/qa/video_memory.py",
    "tools/ship_weights.py",
    "datasets/convert.py",
    "datasets/prepare_widerface.py",
    "datasets/select_faces.py",
    "datasets/split_widerface.py",
)


@pytest.fixture(params=SCRIPTS)
def script(request: pytest.FixtureRequest, repo: Path) -> tuple[str, Any]:
    """A script and its ``main``."""
    for name, package in (("mutation.py", "cosmic_ray"), ("video_memory.py", "av")):
        if request.param.endswith(name):
            pytest.importorskip(package)
    return request.param, runpy.run_path(str(repo / request.param))["main"]


def test_every_script_is_known(repo: Path) -> None:
    found = [
        path
        for folder in ("tools", "tools/qa", "datasets")
        for path in (repo / folder).glob("*.py")
        if "def main(" in path.read_text(encoding="utf-8")
    ]
    assert sorted(path.relative_to(repo).as_posix() for path in found) == sorted(SCRIPTS)


def test_a_wrong_flag_is_one_line_and_status_2(
    script: tuple[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    name, main = script
    with pytest.raises(SystemExit) as stopped:
        main(["--no-such-flag"])
    text = capsys.readouterr().err
    assert stopped.value.code == 2
    assert text.startswith("error: ")
    assert text.endswith(f"({name} --help explains the options)\n")
    assert text.count("\n") == 1


def test_the_help_has_examples(script: tuple[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    name, main = script
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"  python {name}" in text.partition("\nexamples:\n")[2]


def test_failed_work_is_one_line_and_status_1(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing")
    for name, words in (
        ("tools/ship_weights.py", ["lffd-20l5s", missing]),
        ("datasets/convert.py", [missing, "--to", "coco", "--output", missing]),
        ("datasets/prepare_widerface.py", [missing, "--root", missing]),
        ("datasets/split_widerface.py", [missing, str(tmp_path / "new")]),
    ):
        assert runpy.run_path(str(repo / name))["main"](words) == 1, name
        text = capsys.readouterr().err
        assert text.startswith("error: "), name
        assert missing in text
        assert text.count("\n") == 1
