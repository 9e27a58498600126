"""What a run is asked for, and the pictures it reads: what is refused, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.label_files import write_coco, write_pictures, write_wider
from helpers.tiny_sets import write_wider_set

from face_d2.data.labels import read_labels
from face_d2.data.register import register_wider_face
from face_d2.finetune.data import in_validation, read_training_data
from face_d2.finetune.request import Request, check_request, earlier_state


def test_a_detector_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"no detector 'lffd' ships .*did you mean 'lffd-20l5s'"):
        check_request(Request("faces", model="lffd"))


def test_a_folder_with_another_training_is_left_alone(tmp_path: Path) -> None:
    assert earlier_state(Request("faces"), tmp_path, must_exist=False) == {}
    (tmp_path / "model_final.pth").touch()
    with pytest.raises(ValueError, match="has checkpoints of another training; give another"):
        earlier_state(Request("faces"), tmp_path, must_exist=False)


@pytest.fixture
def squares(tmp_path: Path) -> str:
    """A registered set of eleven pictures, the first without a face."""
    text = write_wider_set(tmp_path, "train", 11)
    name = f"squares_{tmp_path.name}"
    register_wider_face(name, tmp_path / "WIDER_train" / "images", text)
    return name


def test_a_registered_set_is_cut_as_its_files_are(squares: str, tmp_path: Path) -> None:
    data = read_training_data(squares, None, tmp_path / "lists")
    names = {f"0--Squares/{index}.jpg" for index in range(11)}
    found = {}
    for part, notation in (("train", data.train), ("val", data.val)):
        labels = read_labels(notation)
        found[part] = {labels.relative_name(image) for image in labels.images}
    assert found["val"] == {name for name in names if in_validation(name)}
    assert found["train"] == names - found["val"]
    assert (data.train_images, data.val_images) == (len(found["train"]), len(found["val"]))


def test_a_registered_set_whose_labels_are_missing_is_named(tmp_path: Path) -> None:
    name = f"missing_{tmp_path.name}"
    register_wider_face(name, tmp_path, tmp_path / "list_bbx_gt.txt")
    with pytest.raises(FileNotFoundError, match=r"list_bbx_gt\.txt"):
        read_training_data(name, None, tmp_path / "lists")


def test_a_set_without_labels_is_refused(squares: str, tmp_path: Path) -> None:
    name = f"unlabeled_{tmp_path.name}"
    listing = tmp_path / "list.txt"
    listing.write_text("0--Squares/1.jpg\n")
    register_wider_face(name, tmp_path / "WIDER_train" / "images", listing, annotated=False)
    with pytest.raises(ValueError, match=f"{name} cannot be split .*give .* by --val"):
        read_training_data(name, None, tmp_path / "lists")
    with pytest.raises(ValueError, match=f"{name} has no labels to train on; give a data set"):
        read_training_data(name, squares, tmp_path / "lists")
    with pytest.raises(ValueError, match=f"{name} has no labels to validate on; give a data set"):
        read_training_data(squares, name, tmp_path / "lists")


def test_pictures_without_a_face_are_refused(squares: str, tmp_path: Path) -> None:
    boxes = write_pictures(tmp_path / "empty", 8)
    empty = write_coco(tmp_path / "empty", {name: [] for name in boxes})
    with pytest.raises(ValueError, match="there is no face to validate on in 8 pictures; give"):
        read_training_data(squares, empty, tmp_path / "lists")


def test_too_few_pictures_to_cut_say_how_many_fell_into_each_part(tmp_path: Path) -> None:
    boxes = write_pictures(tmp_path, 8)
    kept = {name: rows for name, rows in boxes.items() if not in_validation(name)}
    notation = write_wider(tmp_path, kept)
    with pytest.raises(ValueError, match=rf"0 of {len(kept)} pictures were chosen for validation"):
        read_training_data(notation, None, tmp_path / "lists")
