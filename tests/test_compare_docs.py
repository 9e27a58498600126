"""What docs/compare.md says is run, in order, in a folder that has what it speaks of."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.small_graphs import constant_graph
from helpers.tiny_sets import write_wider_set

from face_d2.cli.compare import main
from face_d2.detectors import ONNX_DETECTORS

pytest.importorskip("plotly", reason="the extra [compare] is not installed")
STRIDES = (8, 16, 32)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins for the files that the page names; the current one."""
    size = (160, 192)  # to which tiny_sets' pictures are padded
    cells = {stride: size[0] // stride * (size[1] // stride) for stride in STRIDES}
    sides = (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
    yunet = {f"{kind}_{s}": np.zeros((1, cells[s], n)) for kind, n in sides for s in STRIDES}
    constant_graph(tmp_path / "yunet_n_dynamic.onnx", yunet)
    levels = [np.zeros((1, 2 * (640 // s) ** 2, n)) for n in (1, 4, 10) for s in STRIDES]
    scrfd = {f"out{index}": level for index, level in enumerate(levels)}
    constant_graph(tmp_path / "scrfd_500m_kps.onnx", scrfd, (640, 640))
    write_wider_set(tmp_path / "datasets" / "widerface", "val", 3)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "street.jpg"), np.zeros((144, 192, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    return tmp_path


def test_the_first_command_and_the_python_run(repo: Path, workplace: Path) -> None:
    text = (repo / "docs" / "compare.md").read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    command, *words = shlex.split(fenced[0][1])
    assert command == "face-d2-compare"
    main([*words, "--timing-images", "1"])
    written = {path.name for path in (workplace / "output" / "compare").iterdir()}
    assert {"index.html", "results.json", "results.txt", "results.md"} <= written
    (script,) = (block for language, block in fenced if language == "python")
    exec(compile(script, "docs/compare.md", "exec"), {})


def test_the_second_command_runs_on_ones_own_images(repo: Path, workplace: Path) -> None:
    text = (repo / "docs" / "compare.md").read_text(encoding="utf-8")
    line = re.findall(r"^face-d2-compare .*", text, re.M)[1]
    # The export of a network takes a minute and has tests of its own.
    words = shlex.split(line.replace("face-d2:model.onnx", "predictions:recorded"))[1:]
    images = workplace / "datasets" / "widerface" / "WIDER_val" / "images"
    shutil.copytree(images, workplace / "faces" / "images")
    annotations = workplace / "datasets" / "widerface" / "wider_face_split"
    shutil.copy(annotations / "wider_face_val_bbx_gt.txt", workplace / "faces" / "val.txt")
    for index in range(3):
        file = workplace / "recorded" / "0--Squares" / f"{index}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{index}\n1\n10 10 20 20 0.5\n")
    main(words)
    assert (workplace / "output" / "own" / "index.html").is_file()


def test_the_page_lists_every_adapter_with_its_settings(repo: Path) -> None:
    text = (repo / "docs" / "compare.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", text, re.M))
    for adapter, detector in ONNX_DETECTORS.items():
        assert f"{detector.defaults.score:g}" in rows[adapter]
        assert f"{detector.defaults.nms:g}" in rows[adapter]


def test_the_tables_have_the_figures_of_the_recorded_comparison(repo: Path) -> None:
    recorded = json.loads((repo / "benchmarks/results/compare_fold.json").read_text())["detectors"]
    text = (repo / "docs" / "compare.md").read_text(encoding="utf-8").split("## Measured")[1]
    table, printed = text.split("###")
    rows = [line.split("|")[1:5] for line in table.splitlines() if line.startswith("|")][2:]
    assert {row[0].strip() for row in rows} == set(recorded)
    for name, *aps in rows:
        for setting, cell in zip(("easy", "medium", "hard"), aps):
            figure, low, high = map(float, re.findall(r"[\d.]+", cell))
            expected = recorded[name.strip()]
            assert figure == pytest.approx(expected[f"AP_{setting}"], abs=0.006)
            assert [low, high] == pytest.approx(expected["interval_95"][setting], abs=0.06)
    believed = [line.split("|")[1:] for line in printed.splitlines() if line.startswith("|")][2:]
    assert len(believed) >= 6
    for name, theirs, _, inside, _ in believed:
        intervals = [recorded[name.strip()]["interval_95"][k] for k in ("easy", "medium", "hard")]
        held = [low <= float(v) <= high for v, (low, high) in zip(theirs.split("/"), intervals)]
        assert inside.split()[0] == str(sum(held))


def test_the_readme_has_the_same_figures(repo: Path) -> None:
    recorded = json.loads((repo / "benchmarks/results/compare_fold.json").read_text())["detectors"]
    text = (repo / "README.md").read_text(encoding="utf-8").split("with `face-d2-compare`")[1]
    rows = [line.split("|")[1:5] for line in text.split("##")[0].splitlines() if line[:1] == "|"]
    for names, *aps in rows[2:]:
        for index, name in enumerate(names.split(" (")[0].split(",")):
            for setting, cell in zip(("easy", "medium", "hard"), aps):
                expected = recorded[name.strip()][f"AP_{setting}"]
                assert float(cell.split(",")[index]) == pytest.approx(expected, abs=0.051)


def test_every_file_that_the_page_names_exists(repo: Path) -> None:
    text = (repo / "docs" / "compare.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:benchmarks|face_d2|tests)/[\w./-]+)`", text)
    assert named
    assert [name for name in named if not (repo / name).exists()] == []
