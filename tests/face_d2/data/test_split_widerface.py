"""Splits by image name are reproducible and lose no image."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from face_d2.data.register import load_wider_face
from face_d2.data.wider_face import read_annotations
from face_d2.synthetic.dataset import generate


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(
        tmp_path_factory.mktemp("set") / "widerface", train_images=1, val_images=12, progress=False
    )


def split(repo: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, repo / "datasets" / "split_widerface.py", *words]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def test_every_image_is_in_the_set_its_name_says(repo: Path, source: Path, tmp_path: Path) -> None:
    run = split(repo, source, tmp_path / "cut", "--folds", 3, "--fold", 1)
    assert run.returncode == 0, run.stderr
    texts = tmp_path / "cut" / "widerface" / "wider_face_split"
    parts = {
        part: read_annotations(texts / f"wider_face_{part}_bbx_gt.txt") for part in ("train", "val")
    }
    whole = read_annotations(source / "wider_face_split" / "wider_face_val_bbx_gt.txt")
    assert len(parts["train"]) + len(parts["val"]) == len(whole) == 12
    by_name = {image.name: image for part in parts.values() for image in part}
    for image in whole:
        np.testing.assert_array_equal(by_name[image.name].boxes, image.boxes)
        np.testing.assert_array_equal(by_name[image.name].attributes, image.attributes)
    for part, remainders in (("val", {1}), ("train", {0, 2})):
        for image in parts[part]:
            digest = hashlib.sha1(image.name.encode()).hexdigest()
            number = sum(int(digit, 16) * pow(16, 39 - i, 3) for i, digit in enumerate(digest))
            assert number % 3 in remainders
        folder = tmp_path / "cut" / "widerface" / f"WIDER_{part}" / "images"
        records = load_wider_face(folder, texts / f"wider_face_{part}_bbx_gt.txt")
        assert all(Path(record["file_name"]).is_file() for record in records)


def test_bad_arguments_of_a_split_are_refused(repo: Path, source: Path, tmp_path: Path) -> None:
    for words, message in (
        ((source, tmp_path, "--fold", 5), "--fold is 5; expected 0 to 4"),
        ((source, source.parent), "name another folder"),
        ((source, tmp_path, "--split", "train"), "falls into the"),
        ((tmp_path, tmp_path / "cut"), "no such annotation file"),
    ):
        run = split(repo, *words)
        assert run.returncode != 0
        assert message in run.stderr
        assert "Traceback" not in run.stderr
    assert (source / "WIDER_val" / "images").is_dir()  # the source is unchanged


def test_a_missing_image_is_named(repo: Path, tmp_path: Path) -> None:
    source = generate(tmp_path / "widerface", train_images=1, val_images=3, progress=False)
    lost = read_annotations(source / "wider_face_split" / "wider_face_val_bbx_gt.txt")[1].name
    (source / "WIDER_val" / "images" / lost).unlink()
    run = split(repo, source, tmp_path / "cut")
    assert run.returncode != 0
    assert lost in run.stderr
    assert not (tmp_path / "cut").exists()
