"""The code of docs/predict.md and docs/export.md runs, in order, in a folder with its files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from face_d2.cli.benchmark import parser as benchmark_parser
from face_d2.cli.export import main as export_main
from face_d2.cli.predict import main as predict_main
from face_d2.config import get_cfg, get_config_file

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "tools/predict.py": predict_main,
    "tools/export_onnx.py": export_main,
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with weights, a photograph and a clip; the current one."""
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("lffd/lffd_25L8S.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():
        for branch in model.head.values():  # an untrained network would see faces everywhere
            branch.score.bias.copy_(torch.tensor([-9.0, 0.0]))
    torch.save({"model": model.state_dict()}, tmp_path / "model_final.pth")
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "street.jpg"), image)
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (80, 60)
    )
    for _ in range(3):
        writer.write(image)
    writer.release()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_run_from_top_to_bottom(repo: Path, workplace: Path) -> None:
    pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    text = "\n".join(
        (repo / "docs" / page).read_text(encoding="utf-8") for page in ("predict.md", "export.md")
    )
    names: dict[str, object] = {}
    ran = 0
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        if language == "python":
            exec(compile(block, "docs", "exec"), names)
            continue
        for line in block.strip().splitlines():
            python, tool, *words = shlex.split(line)
            assert python == "python"
            assert (repo / tool).is_file()
            assert COMMANDS[tool](words) == 0, line
            ran += 1
    assert ran == 8
    written = {p.relative_to(workplace).as_posix() for p in (workplace / "output").rglob("*.*")}
    assert {
        "output/predict/detections.json",
        "output/predict/drawn/street.jpg",
        "output/street/detections.csv",
        "output/street/blurred/clip.mp4",
        "output/shards/detections.json",
        "output/onnx/detections.json",
    } <= written


def test_commands_of_the_benchmarks_page(repo: Path) -> None:
    """They take hours; here their words are understood; tests/face_d2/benchmark runs the tool."""
    text = (repo / "docs" / "benchmark.md").read_text(encoding="utf-8")
    text += (repo / "docs" / "train.md").read_text(encoding="utf-8")
    lines = re.findall(r"python tools/benchmark\.py (.*?)(?:\s+#.*)?[`\n]", text)
    assert len(lines) == 5
    for line in lines:
        options = benchmark_parser().parse_args(shlex.split(line))
        assert Path(get_config_file(options.config_file)).is_file()
