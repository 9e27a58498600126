"""Runs are kept, found again by content, and go on after a stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.small_graphs import constant_graph
from helpers.tiny_sets import write_coco_set, write_wider_set
from numpy.testing import assert_allclose
from PIL import Image

from face_d2.analysis.compare import run as run_module
from face_d2.analysis.compare.comparison import CompareSettings, compare
from face_d2.analysis.compare.cost import measure_memory
from face_d2.analysis.compare.data import read_image_set
from face_d2.analysis.compare.measures import MeasureSettings
from face_d2.analysis.compare.opening import DetectorChoice
from face_d2.analysis.compare.run import run_detector


@pytest.fixture
def images(tmp_path):
    text = write_wider_set(tmp_path / "set", "val", 6)
    return read_image_set(f"wider:{text}:{tmp_path / 'set' / 'WIDER_val' / 'images'}")


def finder(path: Path, score: float = 0.9) -> DetectorChoice:
    rows = np.zeros((1, 5, 30))
    rows[0, :, 3] = [100, 100, 60, 60, score]
    return DetectorChoice.parse(f"yolov8face:{constant_graph(path, {'o': rows}, (640, 640))}")


@pytest.fixture
def searched(monkeypatch) -> list[str]:
    """The images that are really searched."""
    names: list[str] = []
    search = run_module._search

    def counted(detector, name, file):
        names.append(name)
        return search(detector, name, file)

    monkeypatch.setattr(run_module, "_search", counted)
    return names


def test_an_image_is_searched_once(images, tmp_path, searched):
    spec = finder(tmp_path / "a.onnx")
    first = run_detector(spec, images, tmp_path / "runs", progress=False)
    assert len(searched) == 6
    again = run_detector(spec, images, tmp_path / "runs", progress=False)
    assert len(searched) == 6
    for name in images.files:
        assert_allclose(first[name].boxes, again[name].boxes)
        assert len(first[name].scores) == 1


def test_the_same_content_under_another_name_is_not_run_again(images, tmp_path, searched):
    run_detector(finder(tmp_path / "a.onnx"), images, tmp_path / "runs", progress=False)
    run_detector(finder(tmp_path / "b.onnx"), images, tmp_path / "runs", progress=False)
    assert len(searched) == 6


@pytest.mark.parametrize("change", ["content", "option"])
def test_another_file_or_setting_is_another_run(change, images, tmp_path, searched):
    run_detector(finder(tmp_path / "a.onnx"), images, tmp_path / "runs", progress=False)
    other = finder(tmp_path / "b.onnx", 0.8 if change == "content" else 0.9)
    if change == "option":
        other = DetectorChoice.parse(f"yolov8face:{tmp_path / 'b.onnx'}?nms=0.3")
    run_detector(other, images, tmp_path / "runs", progress=False)
    assert len(searched) == 12


def test_a_changed_image_is_searched_again(images, tmp_path, searched):
    spec = finder(tmp_path / "a.onnx")
    run_detector(spec, images, tmp_path / "runs", progress=False)
    name, file = next(iter(images.files.items()))
    os.utime(file, ns=(1, 1))
    run_detector(spec, images, tmp_path / "runs", progress=False)
    assert searched[6:] == [name]


def test_a_line_that_a_killed_run_left_half_written_is_searched_again(images, tmp_path, searched):
    spec = finder(tmp_path / "a.onnx")
    run_detector(spec, images, tmp_path / "runs", progress=False)
    (journal,) = (tmp_path / "runs").glob("*.jsonl")
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    run_detector(spec, images, tmp_path / "runs", progress=False)
    assert searched[6:] == [list(images.files)[-1]]
    assert journal.read_bytes() == whole


def test_an_image_of_a_damaged_line_is_searched_again(images, tmp_path, searched):
    spec = finder(tmp_path / "a.onnx")
    first = run_detector(spec, images, tmp_path / "runs", progress=False)
    (journal,) = (tmp_path / "runs").glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[1:4] = [b"\0" * 40 + b"\n", b'{"boxes": []}\n', b"[]\n"]
    journal.write_bytes(b"".join(lines))
    again = run_detector(spec, images, tmp_path / "runs", progress=False)
    assert searched[6:] == list(images.files)[1:4]
    for name in images.files:
        assert_allclose(first[name].boxes, again[name].boxes)


def test_an_unreadable_image_is_named_with_what_to_do(images, tmp_path):
    file = next(iter(images.files.values()))
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match=rf"{file.name}.*; repair the file, or leave it out of"):
        run_detector(finder(tmp_path / "a.onnx"), images, tmp_path / "runs", progress=False)


def test_recorded_detections_without_an_image_say_what_is_expected(images, tmp_path):
    (tmp_path / "found" / "0--E").mkdir(parents=True)
    (tmp_path / "found" / "0--E" / "a.txt").write_text("a\n0\n")
    with pytest.raises(ValueError, match=r"found: has no file \S+\.txt; expected one for each"):
        run_detector(DetectorChoice.parse(f"predictions:{tmp_path / 'found'}"), images, tmp_path)


def test_listed_images_are_found_by_name_or_path_and_none_is_left_out(tmp_path):
    folder = tmp_path / "pictures"
    for name in ("a.png", "b.png", "x/c.png", "x/y/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40)).save(folder / name)
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*.png"))]
    rows = [f"{file}\n1\n1 2 30 30 0 0 0 0 0 0\n" for file in files]
    labels, listing = tmp_path / "labels.txt", tmp_path / "list.txt"
    labels.write_text("".join(rows))
    data = f"wider:{labels}:{folder}"
    listing.write_text("a.png\npictures/b\n./x/c.png\nx/y/d.png\n")
    assert len(read_image_set(data, listing).files) == 4
    listing.write_text(rows[0])  # an annotation text is a list too
    assert list(read_image_set(data, listing).files) == ["pictures/a"]
    listing.write_text("a.png\nnowhere.png\n")
    with pytest.raises(ValueError, match=r"1 of the images asked for .* 'nowhere'"):
        read_image_set(data, listing)


def test_two_processes_find_what_one_finds(images, tmp_path):
    spec = finder(tmp_path / "a.onnx")
    one = run_detector(spec, images, tmp_path / "one", progress=False)
    two = run_detector(spec, images, tmp_path / "two", processes=2, progress=False)
    assert list(one) == list(two)
    for name in one:
        assert_allclose(one[name].boxes, two[name].boxes)


def test_a_killed_comparison_goes_on_and_ends_with_the_same_results(tmp_path):
    text = write_wider_set(tmp_path / "set", "val", 40)
    spec = finder(tmp_path / "a.onnx")
    command = [
        sys.executable, "-c", "import sys; from face_d2.cli.compare import main; sys.exit(main())",
        "--detector", f"yolov8face:{spec.target}", "--no-timing", "--bootstrap", "20",
        "--data", f"wider:{text}:{tmp_path / 'set' / 'WIDER_val' / 'images'}", "--pictures", "4",
    ]  # fmt: skip
    killed = subprocess.Popen([*command, "--output", str(tmp_path / "killed")])
    journal_folder = tmp_path / "killed" / "runs"
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in journal_folder.glob("*.jsonl")):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "results.json").exists()
    for name in ("killed", "whole"):
        subprocess.run([*command, "--output", str(tmp_path / name)], check=True)
    results = [(tmp_path / name / "results.json").read_bytes() for name in ("killed", "whole")]
    assert results[0] == results[1]


class TestData:
    def test_wider_face_below_the_data_root_uses_the_official_lists_where_they_are(
        self, test_data, monkeypatch
    ):
        monkeypatch.setenv("DETECTRON2_DATASETS", str(test_data))
        images = read_image_set("widerface_val")
        assert len(images.files) == 114
        assert "official .mat lists" in images.ground_truth.source
        assert images.ground_truth.images == "widerface_val (114 of 3226 images)"

    def test_a_list_restricts_the_images(self, images, tmp_path):
        listing = tmp_path / "some.txt"
        listing.write_text("0--Squares/3.jpg\n0--Squares/1.jpg\n")
        folder = next(iter(images.files.values())).parents[1]
        text = folder.parents[1] / "wider_face_split" / "wider_face_val_bbx_gt.txt"
        some = read_image_set(f"wider:{text}:{folder}", listing)
        assert list(some.files) == ["0--Squares/3", "0--Squares/1"]
        assert some.name == "wider_face_val_bbx_gt, some"

    def test_a_coco_set_has_its_boxes(self, tmp_path):
        annotations, folder = write_coco_set(tmp_path / "coco", 3)
        images = read_image_set(f"coco:{annotations}:{folder}")
        expected = [a["bbox"] for a in json.loads(annotations.read_text())["annotations"]]
        assert len(images.files) == 3
        assert_allclose(images.ground_truth.boxes, expected)

    def test_a_list_that_is_not_there_is_named(self, images, tmp_path):
        folder = next(iter(images.files.values())).parents[1]
        text = folder.parents[1] / "wider_face_split" / "wider_face_val_bbx_gt.txt"
        with pytest.raises(FileNotFoundError, match=r"none\.txt: no such list of images"):
            read_image_set(f"wider:{text}:{folder}", tmp_path / "none.txt")

    @pytest.mark.parametrize(
        ("data", "message"),
        [("nothing", "expected widerface_val"), ("wider:a.txt:b", "a.txt: no such file")],
    )
    def test_what_cannot_be_read_is_named(self, data, message):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_image_set(data)

    def test_a_missing_image_is_named_before_any_run(self, images):
        file = list(images.files.values())[2]
        file.unlink()
        text = file.parents[3] / "wider_face_split" / "wider_face_val_bbx_gt.txt"
        with pytest.raises(
            FileNotFoundError, match=r"1 of \d+ annotated images .* 0--Squares/2\.jpg"
        ):
            read_image_set(f"wider:{text}:{file.parents[1]}")


def test_fddb_is_scored_by_its_own_protocol(tmp_path, monkeypatch):
    """Ten images with one round face each; the detector finds the face of every other one."""
    root = tmp_path / "fddb"
    (root / "FDDB-folds").mkdir(parents=True)
    rows = np.zeros((1, 5, 30))
    for number in range(1, 11):
        name = f"2002/{number:02d}/img"
        file = root / "originalPics" / f"{name}.jpg"
        file.parent.mkdir(parents=True)
        cv2.imwrite(str(file), np.zeros((640, 640, 3), np.uint8))
        center = 200 if number % 2 else 500
        (root / "FDDB-folds" / f"FDDB-fold-{number:02d}-ellipseList.txt").write_text(
            f"{name}\n1\n60 60 0 {center} {center} 1\n"
        )
    rows[0, :, 3] = [200, 200, 120, 120, 0.9]
    file = constant_graph(tmp_path / "half.onnx", {"o": rows}, (640, 640))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    images = read_image_set("fddb")
    with pytest.raises(ValueError, match="--images: FDDB is scored on all of its images"):
        read_image_set("fddb", file)
    choice = DetectorChoice.parse(f"half=yolov8face:{file}")
    settings = CompareSettings(timing_images=0, pictures=1)
    results = compare([choice], [images], tmp_path / "out", settings, progress=False)
    figures = results["detectors"]["half"]["fddb"]
    assert figures["disc@1000"] == pytest.approx(50)
    assert 35 < figures["cont@1000"] < 50  # a circle in a square: IoU pi / 4
    images.files["2002-03/img"].unlink()
    with pytest.raises(FileNotFoundError, match=r"03/img\.jpg: this image of fddb is not there"):
        read_image_set("fddb")


def test_costs_are_measured_once(images, tmp_path):
    """What a stopped comparison left of them, here half a file, is measured again."""
    settings = CompareSettings(
        MeasureSettings(bootstrap=0), timing_images=2, timing_threads=(1,), pictures=0
    )
    choice = finder(tmp_path / "a.onnx")
    kept = tmp_path / "out" / "runs" / "costs.json"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"asked": {')
    first, again = (
        compare([choice], [images], tmp_path / "out", settings, progress=False) for _ in range(2)
    )
    cost = first["detectors"][choice.name]["cost"]
    assert cost["images"] == 2
    assert cost["threads_1"]["milliseconds"] > 0
    assert again["detectors"][choice.name]["cost"] == cost
    whole = json.loads(kept.read_text())
    assert whole["costs"][choice.name] == cost
    whole["asked"]["machine"]["processor"] = "another"
    whole["costs"][choice.name]["images"] = 7
    kept.write_text(json.dumps(whole))
    other = compare([choice], [images], tmp_path / "out", settings, progress=False)
    assert other["detectors"][choice.name]["cost"]["images"] == 2


def test_a_comparison_of_nothing_is_refused(images, tmp_path):
    with pytest.raises(ValueError, match="there is no detector; name at least one"):
        compare([], [images], tmp_path, CompareSettings())
    with pytest.raises(ValueError, match="there is no data set; name at least one"):
        compare([finder(tmp_path / "a.onnx")], [], tmp_path, CompareSettings())


class Deadly:
    """Ends the process that unpickles it, as the system does if memory runs out."""

    name = "Deadly"

    def __reduce__(self):
        return os.abort, ()


def test_a_killed_memory_measurement_is_a_warning(caplog):
    assert measure_memory(Deadly(), []) is None
    assert "Deadly: the process that measures the memory was killed" in caplog.text
