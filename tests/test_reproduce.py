"""docs/reproduce.md: its commands run, on the CPU and on pictures drawn in milliseconds."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_sets import write_wider_set

from face_d2.config import get_cfg, get_config_file

#: What makes any config small: a thin network from random weights, one step, thumbnails.
TINY = [
    *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", "0"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "16", "MODEL.RESNETS.WIDTH_PER_GROUP", "4"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.FFP.PSI_INIT_GAIN", "0.1"),
    *("MODEL.FFP.OUT_CHANNELS", "16", "MODEL.DF2S2.CONV_DIM", "16"),
    *("MODEL.LFFD.INIT", "fixup", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()"),
    *("SOLVER.IMS_PER_BATCH", "4"),
    *("INPUT.FACE_CROP.SIZE", "64", "INPUT.SCALE_SAMPLING.SIZE", "64", "INPUT.MIN_SIZE_TEST", "64"),
    *("DATALOADER.NUM_WORKERS", "0", "TEST.EVAL_PERIOD", "0", "TEST.BEST_METRIC", ""),
    *("MODEL.DF2S2.TOPK_CANDIDATES_TEST", "20", "MODEL.LFFD.TOPK_CANDIDATES_TEST", "20"),
]
PRELUDE = "import face_d2.register, json, runpy, sys\n"
EACH = PRELUDE + (
    "for sys.argv in json.load(open(sys.argv[1])):\n"
    "    print(*sys.argv, flush=True)\n"
    "    try:\n"
    "        runpy.run_path(sys.argv[0], run_name='__main__')\n"
    "    except SystemExit as end:\n"
    "        assert not end.code, end.code\n"
)


@pytest.fixture(scope="module")
def page(repo: Path) -> str:
    return (repo / "docs" / "reproduce.md").read_text(encoding="utf-8")


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        write_wider_set(tmp_path / "datasets" / "widerface", split, 4)
    return tmp_path


def commands(page: str) -> list[list[str]]:
    """The page's commands as words."""
    blocks = re.findall(r"^```\n(.*?)^```", page, re.M | re.S)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def small(words: list[str], repo: Path, port: int) -> list[str]:
    """A command on the CPU, with the small settings behind its own."""
    words = [str(repo / words[0]), *words[1:]]
    if "--config-file" not in words:
        return words
    place = words.index("--config-file") + 1
    words[place] = str(repo / words[place])
    words[words.index("--num-gpus") + 1] = "0"
    if "--dist-url" in words:
        words[words.index("--dist-url") + 1] = f"tcp://127.0.0.1:{port}"
    weights = [] if "--eval-only" in words else ["MODEL.WEIGHTS", ""]
    return [*words, *TINY, *weights]


def start(code: str, arguments: list[str], workplace: Path) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "DETECTRON2_DATASETS"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        cwd=workplace,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output[-3000:]
    return output


def test_commands_of_one_machine(repo: Path, page: str, workplace: Path) -> None:
    """In the page's order, so that what is evaluated was trained before."""
    lines = [small(words, repo, 0) for words in commands(page) if "--num-machines" not in words]
    assert len(lines) >= 9
    (workplace / "lines.json").write_text(json.dumps(lines))
    output = finish(start(EACH, ["lines.json"], workplace))
    assert "Auto-scaling the config to batch_size=1, learning_rate=0.001" in output
    for result in (
        "df2s2_R50_FFP/inference/widerface_val/widerface.json",
        "df2s2_R50_FFP/inference_TTA/widerface_val/widerface.json",
        "lffd_25L8S/inference/widerface_val/widerface.json",
        "retinanet_R50_FPN/model_final.pth",
    ):
        assert (workplace / "output" / result).is_file(), result


def test_commands_of_two_machines(repo: Path, page: str, workplace: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = [small(words, repo, port) for words in commands(page) if "--num-machines" in words]
    assert [words[words.index("--machine-rank") + 1] for words in lines] == ["0", "1"]
    machines = []
    for rank, words in enumerate(lines):
        (workplace / f"{rank}.json").write_text(json.dumps([words]))
        machines.append(start(EACH, [f"{rank}.json"], workplace))
    outputs = [finish(machine) for machine in machines]
    assert "World size: 2" in outputs[0]
    assert (workplace / "output" / "df2s2_R50_FFP" / "model_final.pth").is_file()


def test_cost_is_what_the_table_says(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    exec(code, {})
    printed = capsys.readouterr().out.splitlines()
    table = re.findall(
        r"^\| `([\w/]+)` \| ([\d.]+) \| ([\d.]+) M \| ([\d.]+) \| (.*) \|", page, re.M
    )
    assert len(table) == len(printed)
    for (name, forward, images, operations, hours), line in zip(table, printed):
        assert line == f"{name}: {forward} G forward, {operations} x 10^18 operations"
        cfg = get_cfg()
        cfg.merge_from_file(get_config_file(f"{name}.yaml"))
        count = cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH
        assert float(images) == pytest.approx(count / 1e6, rel=0.01)
        for cell, rate in zip(hours.split(" | "), (5e12, 20e12, 80e12)):
            expected = float(operations) * 1e18 / rate / 3600
            assert float(cell.removesuffix(" h")) == pytest.approx(expected, rel=0.02)


def test_schedules_of_other_batches(page: str) -> None:
    """The first row is the config's, the others keep its epochs and its rate per image."""
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d,]+); ([\d,]+) and ([\d,]+) \|", page, re.M)
    values = [[float(cell.replace(",", "")) for cell in row] for row in rows]
    solver = get_cfg()
    solver.merge_from_file(get_config_file("df2s2/df2s2_R50_FFP.yaml"))
    solver = solver.SOLVER
    first = [solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER, *solver.STEPS]
    assert values[0] == first
    assert len(values) == 3
    for batch, rate, *iterations in values:
        assert rate / batch == pytest.approx(first[1] / first[0])
        assert [batch * n for n in iterations] == [first[0] * n for n in first[2:]]


def test_named_files_exist(repo: Path, page: str) -> None:
    named = re.findall(
        r"(?:`|python |-file )((?:benchmarks|configs|datasets|docs|tests|tools)/[\w./-]+)", page
    )
    assert len(named) > 10
    assert [name for name in named if not (repo / name).exists()] == []
