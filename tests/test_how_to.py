"""The how-to pages: their Python runs as one script, in a folder with the data they speak of."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from helpers.tiny_sets import write_coco_set, write_wider_set

from face_d2.config import get_cfg

PAGES = {
    "use_ffp": [],
    "timm": [],
    "use_lffd_backbone": [],
    "evaluate_any_detector": [
        "output/retinanet/widerface_val/widerface.json",
        "output/mine/0--Squares/1.txt",
        "output/mine.json",
    ],
    "own_data": [
        "faces/converted.txt",
        "output/mine/model_final.pth",
        "output/mine/inference/wider-faces-val.txt-faces-images/widerface.json",
    ],
}


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """WIDER FACE in datasets/, and faces of one's own in faces/."""
    for split in ("train", "val"):
        text = write_wider_set(tmp_path / "datasets" / "widerface", split, 2)
        images = tmp_path / "datasets" / "widerface" / f"WIDER_{split}" / "images"
        shutil.copytree(images, tmp_path / "faces" / "images", dirs_exist_ok=True)
        shutil.copy(text, tmp_path / "faces" / f"{split}.txt")
    file, pictures = write_coco_set(tmp_path / "coco", 2)
    shutil.move(pictures, tmp_path / "faces" / "pictures")
    shutil.move(file, tmp_path / "faces" / "coco.json")
    return tmp_path


def blocks(text: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return [block for name, block in fenced if name == language]


@pytest.mark.parametrize("page", PAGES)
def test_page_runs(repo: Path, workplace: Path, page: str) -> None:
    text = (repo / "docs" / f"{page}.md").read_text(encoding="utf-8")
    script = workplace / "page.py"
    script.write_text("\n".join(blocks(text, "python")))
    environment = {k: v for k, v in os.environ.items() if k != "DETECTRON2_DATASETS"}
    commands = [
        [sys.executable, "-W", "ignore", repo / words[1], *words[2:]]
        for block in blocks(text, "")
        for words in map(str.split, block.splitlines())
        if words[:1] == ["python"]
    ]
    for command in [[sys.executable, "-W", "ignore", script], *commands]:
        done = subprocess.run(
            command, cwd=workplace, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert [name for name in PAGES[page] if not (workplace / name).is_file()] == []


@pytest.mark.parametrize("page", [*PAGES, "faq"])
def test_named_files_exist(repo: Path, page: str) -> None:
    text = (repo / "docs" / f"{page}.md").read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:benchmarks|configs|datasets|docs|examples|tests|tools)/[\w./-]*)", text
    )
    named += re.findall(r"python ((?:examples|tools|datasets)/[\w./-]+)", text)
    named += [
        f"configs/{name}" for name in re.findall(r"`((?:df2s2|lffd|quick)/[\w.-]+yaml)", text)
    ]
    assert named
    assert [name for name in named if not (repo / name).exists()] == []


def test_faq_is_numbered_and_answers_everything(repo: Path) -> None:
    text = (repo / "docs" / "faq.md").read_text(encoding="utf-8")
    entries = re.findall(r"^\*\*(\d+)\. .+\*\*\n(.+)", text, re.M)
    assert [int(number) for number, _ in entries] == list(range(1, 32))
    assert all(len(answer) > 20 for _, answer in entries)


def test_faq_names_keys_and_flags_that_exist(repo: Path) -> None:
    text = (repo / "docs" / "faq.md").read_text(encoding="utf-8")

    def leaves(node: CfgNode, prefix: str = "") -> Iterator[str]:
        for key, value in node.items():
            yield prefix + key
            if isinstance(value, CfgNode):
                yield from leaves(value, f"{prefix}{key}.")

    keys = set(leaves(get_cfg()))
    named = set(re.findall(r"\b[A-Z][A-Z0-9]+(?:\.[A-Z0-9_]+)+\b", text))
    assert len(named) > 10
    assert named - keys == set()
    short = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+|INIT)`", text)) - {"META_ARCH"}
    assert short - {key.split(".")[-1] for key in keys} == set()
    sources = [*(repo / "face_d2").rglob("*.py"), *(repo / "lffd_d2").rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))
    assert len(flags) > 8
    of_detectron2 = {
        action for a in default_argument_parser()._actions for action in a.option_strings
    }
    assert {f for f in flags - of_detectron2 if f'"{f}"' not in code} == set()
