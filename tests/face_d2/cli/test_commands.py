"""All commands: their list, what starting them loads, and one style of errors and overrides."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import face_d2
from face_d2.cli.common import SECTIONS, SINGLE_KEYS, CommandParser, run, split_overrides
from face_d2.cli.main import COMMANDS, main
from face_d2.config import get_cfg

#: Detectron2's own parser reads the command line of the training.
OWN_PARSERS = sorted(set(COMMANDS) - {"train"})
#: What prints a help text needs none of these.
HEAVY = {
    *("torch", "torchvision", "detectron2", "fvcore", "timm", "onnx", "onnxruntime", "openvino"),
    *("matplotlib", "plotly", "scipy", "pandas", "polars", "sklearn", "av", "globox", "requests"),
}


def loaded_by(code: str, cwd: Path) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """The heavy packages that a program has loaded at its end, and what it printed."""
    code += f"\nimport sys\nprint('loaded', *sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:]), done


def test_every_command_is_a_console_script(repo: Path) -> None:
    text = (repo / "setup.py").read_text(encoding="utf-8")
    scripts = dict(re.findall(r'"(face-d2[\w-]*)=([\w.]+:\w+)"', text))
    assert scripts.pop("face-d2") == "face_d2.cli.main:main"
    assert scripts.keys() == {f"face-d2-{name}" for name in COMMANDS}
    for name, (module, _) in COMMANDS.items():
        # Where importing the module takes Detectron2, face-d2 says that it is missing.
        through_main = f"face_d2.cli.main:{name.replace('-', '_')}"
        assert scripts[f"face-d2-{name}"] in (f"{module}:main", through_main)


def test_the_help_lists_every_command_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, what) in COMMANDS.items():
        assert sum(line.split() == [name, *what.split()] for line in lines) == 1
    assert max(map(len, lines)) <= 100


def test_without_a_command_the_help_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "commands:" in captured.err


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predcit", "photo.jpg"]) == 2
    assert capsys.readouterr().err == "error: no command 'predcit'; did you mean predict?\n"


def test_a_command_gets_the_words_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model-zoo", "no/such.yaml"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "fddb", "--help"])
    assert stopped.value.code == 0
    assert "usage: face-d2-evaluate fddb" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{face_d2.__version__}\n"


def test_a_missing_package_of_a_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "face_d2.cli.model_zoo", raising=False)
    monkeypatch.setitem(sys.modules, "tabulate", None)
    assert main(["model-zoo"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert "tabulate" in text
    assert text.count("\n") == 1


def test_the_reference_names_every_command(repo: Path) -> None:
    page = (repo / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `face-d2 ([\w-]+)` \|", page, re.M) == list(COMMANDS)


def test_a_help_text_loads_no_heavy_package(tmp_path: Path) -> None:
    code = (
        "from face_d2.cli.main import main\n"
        f"for words in [[], ['--help'], *([n, '--help'] for n in {OWN_PARSERS!r}),"
        " *(['evaluate', n, '--help'] for n in ('widerface', 'fddb', 'coverage', 'hiding'))]:\n"
        "    try:\n        main(words)\n"
        "    except SystemExit as stop:\n        assert stop.code == 0, words\n"
    )
    loaded, done = loaded_by(code, tmp_path)
    assert loaded == set()
    assert done.stdout.count("usage: face-d2") == 1 + len(OWN_PARSERS) + 4
    assert "arning" not in done.stderr


def test_a_prediction_by_the_shipped_detector_loads_no_torch(repo: Path, tmp_path: Path) -> None:
    photo = repo / "examples" / "photos" / "nasa_group.jpg"
    code = f"from face_d2.cli.main import main\nassert main(['predict', {str(photo)!r}]) == 0\n"
    loaded, done = loaded_by(code, tmp_path)
    assert loaded <= {"onnxruntime", "openvino"}
    assert "arning" not in done.stderr


def test_an_evaluation_loads_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    (tmp_path / "gt.txt").write_text("0--A/a.jpg\n1\n10 10 40 40 0 0 0 0 0 0\n")
    folder = tmp_path / "found" / "0--A"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("a\n1\n10 10 40 40 0.5\n")
    code = (
        "from face_d2.cli.main import main\n"
        "assert main(['evaluate', 'widerface', 'found', 'gt.txt', '--bootstrap', '0']) == 0\n"
    )
    loaded, done = loaded_by(code, tmp_path)
    assert loaded & {"torch", "detectron2", "matplotlib"} == set()
    assert "Warning" not in done.stderr  # this project's own are lines with "warning: "


@pytest.mark.parametrize("name", OWN_PARSERS)
def test_a_wrong_flag_is_one_line_and_status_2(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = importlib.import_module(COMMANDS[name][0])
    words = ["widerface", "a", "b"] if name == "evaluate" else []
    with pytest.raises(SystemExit) as stopped:
        command.main([*words, "--no-such-flag"])
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert f"face-d2-{name}" in text
    assert "--help" in text


@pytest.mark.parametrize("name", OWN_PARSERS)
def test_every_help_has_examples_of_the_command(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module(COMMANDS[name][0]).main(["--help"])
    text = capsys.readouterr().out
    examples = text.partition("\nexamples:\n")[2].partition("\n\n")[0].splitlines()
    assert examples
    assert all(line.startswith(f"  face-d2-{name}") for line in examples)


def test_sections_and_single_keys_are_those_of_a_config() -> None:
    found = set(get_cfg())
    assert set(SECTIONS) <= found
    assert found <= {*SECTIONS, *SINGLE_KEYS}


@pytest.mark.parametrize(
    ("words", "rest", "pairs"),
    [
        (["a.jpg", "MODEL.DEVICE", "cpu"], ["a.jpg"], ["MODEL.DEVICE", "cpu"]),
        (["SEED", "-1", "--draw"], ["--draw"], ["SEED", "-1"]),
        (["TEST.X", "[1, 2]", "b", "SOLVER.Y", "2"], ["b"], ["TEST.X", "[1, 2]", "SOLVER.Y", "2"]),
        (["MODEL.DEVICE", "--draw"], ["--draw"], ["MODEL.DEVICE"]),
        (["MODEL.DEVICE"], [], ["MODEL.DEVICE"]),
        (["IMG.JPG", "MODEL", "model.x"], ["IMG.JPG", "MODEL", "model.x"], []),
    ],
)
def test_overrides_are_taken_out_of_the_words(
    words: list[str], rest: list[str], pairs: list[str]
) -> None:
    assert split_overrides(words) == (rest, pairs)


def test_an_existing_file_is_no_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MODEL.JPG").touch()
    assert split_overrides(["MODEL.JPG", "x"]) == (["MODEL.JPG", "x"], [])


def test_a_parser_gives_the_overrides_wherever_they_stand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = CommandParser("face-d2-x", "Does x.", overrides=True)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--sizes", nargs="+", type=int)
    options = parser.parse_args(["a", "--sizes", "1", "2", "MODEL.DEVICE", "cpu"])
    assert (options.inputs, options.sizes) == (["a"], [1, 2])
    assert options.opts == ["MODEL.DEVICE", "cpu"]
    assert parser.parse_args(["a"]).opts == []
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["a", "MODEL.DEVICE"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: MODEL.DEVICE has no value;")


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("x is 1; expected 2"), 1, "error: x is 1; expected 2\n"),
        (FileNotFoundError("a: no such file"), 1, "error: a: no such file\n"),
        (ValueError("\udce9.png"), 1, "error: \\udce9.png\n"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C\n"),
    ],
)
def test_failed_work_is_one_line_and_status_1(
    error: BaseException, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert run(work) == status
    assert capsys.readouterr().err == text


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(work)
    assert run(lambda: 1) == 1
    assert run(lambda: None) == 0


def test_warnings_are_lines_and_foreign_deprecations_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> None:
        warnings.warn("all scores are equal", UserWarning, stacklevel=1)
        warnings.warn("old", FutureWarning, stacklevel=1)
        warnings.warn("older", DeprecationWarning, stacklevel=1)

    assert run(work) == 0
    assert capsys.readouterr().err == "warning: all scores are equal\n"
