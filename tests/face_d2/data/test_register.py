from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from face_d2.data import image_size
from face_d2.data.labels import read_labels
from face_d2.data.register import load_fddb, load_wider_face, register_all, register_wider_face


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures in WIDER FACE's layout, the second with an EXIF rotation."""
    images = tmp_path / "images" / "0--Parade"
    images.mkdir(parents=True)
    cv2.imwrite(str(images / "a.jpg"), np.zeros((40, 60, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 30)).save(images / "b.jpg", exif=exif)
    (tmp_path / "gt.txt").write_text(
        "0--Parade/a.jpg\n2\n1 2 10 12 1 0 0 0 2 1\n5 5 3 0 0 0 0 0 0 0\n"
        "0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
    )
    return tmp_path


def test_dataset_dicts(folder: Path) -> None:
    first, second = load_wider_face(folder / "images", folder / "gt.txt")
    assert first["file_name"] == str(folder / "images" / "0--Parade" / "a.jpg")
    assert (first["height"], first["width"]) == (40, 60)
    assert first["image_id"] == "0--Parade/a"
    face, degenerate = first["annotations"]
    assert face["bbox"] == [1, 2, 10, 12]
    assert (face["blur"], face["occlusion"], face["pose"]) == (1, 2, 1)
    assert (face["iscrowd"], degenerate["iscrowd"]) == (0, 1)
    assert second["annotations"] == []
    assert (second["height"], second["width"]) == (50, 30)  # as the picture is shown


@pytest.mark.parametrize("annotated", [True, False])
def test_images_that_differ_in_their_suffix_only_are_errors(
    tmp_path: Path, annotated: bool
) -> None:
    faces = ["1", "1 1 9 9 0 0 0 0 0 0"] if annotated else []
    text = tmp_path / "list.txt"
    text.write_text("\n".join(["e/x.jpg", *faces, "e/x.png", *faces]))
    with pytest.raises(ValueError, match=r"list\.txt: 'e/x\.jpg' and 'e/x\.png' differ"):
        load_wider_face(tmp_path, text, annotated=annotated)


def test_sizes_are_cached_by_content(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE_D2_CACHE", str(folder / "cache"))
    names = ["0--Parade/a.jpg", "0--Parade/b.jpg"]
    expected = [(40, 60), (50, 30)]
    assert image_size.image_sizes(folder / "images", names) == expected
    monkeypatch.setattr(image_size, "image_size", lambda path: pytest.fail("read again"))
    assert image_size.image_sizes(folder / "images", names) == expected
    monkeypatch.undo()
    monkeypatch.setenv("FACE_D2_CACHE", str(folder / "cache"))
    cv2.imwrite(str(folder / "images" / names[0]), np.full((44, 66, 3), 9, np.uint8))
    assert image_size.image_sizes(folder / "images", names) == [(44, 66), (50, 30)]


def test_sizes_of_files_with_equal_names_bytes_and_times_are_not_confused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE_D2_CACHE", str(tmp_path / "cache"))
    for side, other in ((40, 60), (60, 40)):
        folder = tmp_path / str(side)
        folder.mkdir()
        cv2.imwrite(str(folder / "a.bmp"), np.zeros((side, other, 3), np.uint8))
        os.utime(folder / "a.bmp", (1e9, 1e9))
        assert image_size.image_sizes(folder, ["a.bmp"]) == [(side, other)]


def test_unwritable_cache_is_only_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("FACE_D2_CACHE", str(folder / "file"))
    assert image_size.image_sizes(folder / "images", ["0--Parade/a.jpg"]) == [(40, 60)]
    assert "FACE_D2_CACHE" in caplog.text


def test_missing_folder_names_the_variable_and_the_tree(tmp_path: Path, folder: Path) -> None:
    for images, text in ((tmp_path / "no", folder / "gt.txt"), (folder / "images", "no.txt")):
        with pytest.raises(FileNotFoundError) as error:
            load_wider_face(images, text)
        assert "DETECTRON2_DATASETS" in str(error.value)
        assert "wider_face_split" in str(error.value)
    with pytest.raises(FileNotFoundError, match="FDDB-folds"):
        load_fddb(tmp_path / "no", tmp_path)


def test_missing_and_damaged_images_are_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "images" / "0--Parade" / "b.jpg").write_bytes(b"not a picture")
    for _ in range(2):  # the second time out of the cache
        records = load_wider_face(folder / "images", folder / "gt.txt")
        assert [(r["height"], r["width"]) for r in records] == [(40, 60), (0, 0)]
    assert caplog.text.count("1 of 2 annotated images cannot be read") == 2
    assert "0--Parade/b.jpg" in caplog.text
    (folder / "images" / "0--Parade" / "b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 .* 0--Parade/b\.jpg"):
        load_wider_face(folder / "images", folder / "gt.txt")


def test_boxes_of_negative_size_are_ignored_and_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "gt.txt").write_text("0--Parade/a.jpg\n1\n30 30 -9 9 0 0 0 0 0 0\n")
    (record,) = load_wider_face(folder / "images", folder / "gt.txt")
    assert [face["iscrowd"] for face in record["annotations"]] == [1]
    assert "gt.txt: 1 boxes of negative width or height are ignored; with" in caplog.text
    (image,) = read_labels(f"wider:{folder / 'gt.txt'}:{folder / 'images'}").images
    assert image.boxes.tolist() == [[21, 30, 9, 9]]  # as the advice says


def test_what_makes_the_files_runs_before_the_first_reading(folder: Path) -> None:
    name, drawn = f"made_{folder.name}", folder / "later.txt"
    register_wider_face(
        name, folder / "images", drawn, prepare=lambda: (folder / "gt.txt").rename(drawn)
    )
    assert not drawn.exists()
    assert len(DatasetCatalog.get(name)) == 2


def test_catalogs() -> None:
    register_all()  # a second time
    for name in ("train", "val", "test", "synth_train", "synth_val"):
        assert f"widerface_{name}" in DatasetCatalog.list()
        metadata = MetadataCatalog.get(f"widerface_{name}")
        assert metadata.thing_classes == ["face"]
        assert metadata.evaluator_type == "widerface"
    assert MetadataCatalog.get("widerface_test").annotation_file is None
    assert MetadataCatalog.get("fddb").evaluator_type == "fddb"


def test_own_folder(folder: Path) -> None:
    name = f"faces_{folder.name}"
    register_wider_face(name, folder / "images", folder / "gt.txt")
    assert [record["image_id"] for record in DatasetCatalog.get(name)] == [
        "0--Parade/a",
        "0--Parade/b",
    ]


def test_registering_reads_nothing(tmp_path: Path) -> None:
    """Importing with a data folder that does not exist, in a folder that must stay empty."""
    code = "import face_d2.register; print('ok')"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env={"PATH": "", "DETECTRON2_DATASETS": str(tmp_path / "none")},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == "ok", run.stderr
    assert list(tmp_path.iterdir()) == []


def test_real_photographs(test_data: Path) -> None:
    counts = {}
    for split in ("train", "val"):
        records = load_wider_face(
            test_data / "widerface" / f"WIDER_{split}" / "images",
            test_data / "widerface" / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt",
        )
        counts[split] = (len(records), sum(len(r["annotations"]) for r in records))
        assert all(r["height"] > 0 and r["width"] > 0 for r in records)
    assert counts == {"train": (223, 4588), "val": (114, 1580)}
