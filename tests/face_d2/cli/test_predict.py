"""The command line: inputs, formats, restart, videos, shards."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.predictors import REFERENCE_PHOTOS, SquareFinder, draw_squares, interrupt_at
from PIL import Image
from pycocotools.coco import COCO

from face_d2 import FaceDetector
from face_d2.cli import predict as command
from face_d2.evaluation.wider_face.files import read_predictions
from face_d2.predictor import job, video
from face_d2.predictor.results import FaceResult
from face_d2.predictor.sources import find_inputs
from face_d2.predictor.work import Pictures
from face_d2.pretrained import DEFAULT, PRETRAINED

SQUARES = {
    "b/two.png": [(10, 20, 30), (60, 30, 20)],
    "a/one.png": [(50, 50, 40)],
    "a/none.png": [],
}


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> SquareFinder:
    """Puts the finder of squares in the network's place."""
    backend = SquareFinder()
    monkeypatch.setattr(
        job,
        "_detector",
        lambda given: FaceDetector(backend, batch_size=given.batch_size, min_size=given.min_size),
    )
    return backend


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images in two folders, and a text that is none."""
    for name, squares in SQUARES.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw_squares((120, 160), squares))
    (tmp_path / "images" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "weights.pth").write_bytes(b"weights")
    return tmp_path


def run(folder: Path, *words: str, inputs: tuple[str, ...] = ()) -> int:
    model = ["--config-file", "lffd/lffd_25L8S.yaml", "--weights", str(folder / "weights.pth")]
    inputs = inputs or (str(folder / "images"),)
    return command.main([*inputs, *model, "--output", str(folder / "out"), *words])


def boxes_of(records: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    return {r["name"]: sorted(face["box"] for face in r.get("faces", [])) for r in records}


EXPECTED = {
    name: sorted([float(x), float(y), float(x + side), float(y + side)] for x, y, side in squares)
    for name, squares in sorted(SQUARES.items())
}


def test_json_and_jsonl(backend: SquareFinder, folder: Path) -> None:
    assert run(folder) == 0
    records = json.loads((folder / "out/detections.json").read_text())
    assert boxes_of(records) == EXPECTED
    assert [r["name"] for r in records] == sorted(SQUARES)
    assert records[1]["file"] == str(folder / "images/a/one.png")
    assert (records[1]["height"], records[1]["width"]) == (120, 160)
    assert records[1]["faces"][0]["level"] == "only"
    assert run(folder, "--format", "jsonl") == 0
    lines = (folder / "out/detections.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records


def csv_rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "out/detections.csv").read_text())))


def test_csv_has_a_row_for_every_face_and_for_pictures_without_one(
    backend: SquareFinder, folder: Path
) -> None:
    (folder / "images" / "a" / "zz.png").write_bytes(b"no picture")
    run(folder, "--format", "csv")
    rows = csv_rows(folder)
    names = [row["name"] for row in rows]
    assert names == ["a/none.png", "a/one.png", "a/zz.png", "b/two.png", "b/two.png"]
    corners = ("x1", "y1", "x2", "y2")
    assert [float(rows[1][k]) for k in corners] == EXPECTED["a/one.png"][0]
    for row in (rows[0], rows[2]):
        assert {row[k] for k in (*corners, "score", "level")} == {""}
    assert [bool(row["error"]) for row in rows] == [False, False, True, False, False]


def test_small_faces_are_left_out_on_request(
    backend: SquareFinder, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Squares of 30 and 20 pixels; a face of exactly the size stays."""
    for size, left in (("20", 2), ("21", 1), ("30.5", 0)):
        words = ["--min-size", size, "--format", "csv", "--blur"]
        assert run(folder, *words, "--output", str(folder / size)) == 0
        rows = (folder / size / "detections.csv").read_text().splitlines()
        assert sum(row.startswith("b/two.png,,") and ",,,,,," not in row for row in rows) == left
        same = cv2.imread(str(folder / "images/b/two.png"))
        assert (cv2.imread(str(folder / size / "blurred/b/two.png")) != same).any() == bool(left)
    assert run(folder, "--min-size", "5", "--blur", "--output", str(folder / "20")) == 1
    assert "other settings (min_size)" in capsys.readouterr().err
    for wrong in ("-1", "inf", "nan", "x"):
        with pytest.raises(SystemExit) as stopped:
            run(folder, "--min-size", wrong)
        assert stopped.value.code == 2


def test_coco_is_read_by_pycocotools(backend: SquareFinder, folder: Path) -> None:
    run(folder, "--format", "coco")
    coco = COCO(str(folder / "out/detections.coco.json"))
    assert sorted(i["file_name"] for i in coco.imgs.values()) == sorted(SQUARES)
    image = next(i["id"] for i in coco.imgs.values() if i["file_name"] == "a/one.png")
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[image]))
    assert annotation["bbox"] == [50, 50, 40, 40]
    assert annotation["score"] > 0.5


def test_blur_starts_from_the_threshold_that_a_shipped_detector_recommends(
    backend: SquareFinder,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Squares of 30 pixels score 0.5009, those of 20 score 0.5004."""
    shipped = PRETRAINED[DEFAULT]
    monkeypatch.setitem(PRETRAINED, DEFAULT, replace(shipped, hiding_threshold=0.5005))
    image = cv2.imread(str(folder / "images/b/two.png"))

    def touched(out: Path) -> list[bool]:
        changed = (cv2.imread(str(out / "blurred/b/two.png")) != image).any(axis=2)
        return [changed[y : y + side, x].any() for x, y, side in SQUARES["b/two.png"]]

    words = [str(folder / "images"), "--blur", "--output"]
    assert command.main([*words, str(folder / "shipped")]) == 0
    assert touched(folder / "shipped") == [True, False]
    printed = capsys.readouterr().err
    assert "2 faces hidden: those with a score above 0.5005, as this detector's" in printed
    results = json.loads((folder / "shipped/detections.json").read_text())
    assert sum(len(record["faces"]) for record in results) == 3  # the results keep all
    asked = [str(folder / "asked"), "--score-threshold", "0.2"]
    assert command.main([*words, *asked]) == 0
    assert touched(folder / "asked") == [True, True]
    assert run(folder, "--blur", "--output", str(folder / "other")) == 0  # a model of one's own
    assert touched(folder / "other") == [True, True]
    assert "3 faces hidden: all that were found" in capsys.readouterr().err
    monkeypatch.setitem(PRETRAINED, DEFAULT, replace(shipped, hiding_threshold=0.3))
    assert command.main([*words, str(folder / "shipped")]) == 1
    assert "other settings (hidden_above)" in capsys.readouterr().err


def test_text_is_what_the_evaluators_read(backend: SquareFinder, folder: Path) -> None:
    run(folder, "--format", "txt")
    predictions = read_predictions(folder / "out/txt")
    assert sorted(predictions) == ["a/none", "a/one", "b/two"]
    np.testing.assert_allclose(predictions["a/one"][0, :4], [50, 50, 40, 40])


def test_text_refuses_names_it_cannot_tell_apart(
    backend: SquareFinder, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(folder / "images/a/one.bmp"), draw_squares((20, 20), []))
    assert run(folder, "--format", "txt") == 1
    assert "a/one.bmp and a/one.png would both become a/one.txt" in capsys.readouterr().err


def test_text_refuses_videos(
    backend: SquareFinder, folder: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "--format", "txt", inputs=(str(clip),)) == 1
    assert "--format txt is for images, and clip.avi is a video" in capsys.readouterr().err
    assert backend.calls == []


@pytest.mark.parametrize("kind", ["txt", "coco"])
def test_images_that_cannot_be_read_are_in_no_format_of_boxes(
    backend: SquareFinder, folder: Path, kind: str
) -> None:
    (folder / "images/a/broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    assert run(folder, "--format", kind) == 1
    if kind == "txt":
        found = read_predictions(folder / "out/txt").keys()
    else:
        coco = json.loads((folder / "out/detections.coco.json").read_text())
        found = {Path(image["file_name"]).with_suffix("").as_posix() for image in coco["images"]}
        assert {face["image_id"] for face in coco["annotations"]} <= {
            image["id"] for image in coco["images"]
        }
    assert set(found) == {"a/none", "a/one", "b/two"}


def test_a_model_that_is_not_there_is_named(
    backend: SquareFinder, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "weights.pth").unlink()
    assert run(folder) == 1
    assert "weights.pth: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["o\nne.png", "o\rne.png"])
def test_text_refuses_names_of_several_lines(
    backend: SquareFinder, folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "images/a/one.png").rename(folder / "images/a" / name)
    assert run(folder, "--format", "txt") == 1
    assert f"{f'a/{name}'!r}: a name of several lines" in capsys.readouterr().err
    assert run(folder, "--format", "csv") == 0


def test_text_holds_nothing_of_inputs_that_are_gone(backend: SquareFinder, folder: Path) -> None:
    run(folder, "--format", "txt")
    (folder / "images/a/one.png").unlink()
    assert run(folder, "--format", "txt") == 0
    assert sorted(read_predictions(folder / "out/txt")) == ["a/none", "b/two"]


def test_pictures(backend: SquareFinder, folder: Path) -> None:
    assert run(folder, "--draw", "--blur", "--crop") == 0
    out = folder / "out"
    original = cv2.imread(str(folder / "images/a/one.png"))
    for kind in ("drawn", "blurred"):
        made = sorted(p.relative_to(out / kind).as_posix() for p in (out / kind).rglob("*.png"))
        assert made == sorted(SQUARES)
        changed = cv2.imread(str(out / kind / "a/one.png"))
        assert changed.shape == original.shape
        assert (changed != original).any()
    crops = sorted(p.relative_to(out / "crops").as_posix() for p in (out / "crops").rglob("0*.png"))
    assert crops == ["a/one.png/0001.png", "b/two.png/0001.png", "b/two.png/0002.png"]
    assert cv2.imread(str(out / "crops" / crops[0])).shape == (60, 60, 3)


def test_pictures_show_what_the_model_does_not_doubt(
    folder: Path, backend: SquareFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finder gives larger squares more; blur and results have all, and so does a threshold."""
    monkeypatch.setattr(job, "SHOWN_FROM", 0.5005)  # between those of 20 and 30 pixels
    image = cv2.imread(str(folder / "images" / "b" / "two.png"))

    def touched(picture: Path) -> list[bool]:
        changed = (cv2.imread(str(picture)) != image).any(axis=2)
        return [changed[y : y + side, x].any() for x, y, side in SQUARES["b/two.png"]]

    for words, drawn, crops in (
        ([], [True, False], 1),
        (["--score-threshold", "0"], [True] * 2, 2),
    ):
        out = folder / f"out{crops}"
        assert run(folder, "--draw", "--blur", "--crop", "--output", str(out), *words) == 0
        assert touched(out / "drawn/b/two.png") == drawn
        assert touched(out / "blurred/b/two.png") == [True, True]
        assert len(list((out / "crops/b/two.png").iterdir())) == crops
        faces = {r["name"]: r["faces"] for r in json.loads((out / "detections.json").read_text())}
        assert len(faces["b/two.png"]) == 2


@pytest.mark.parametrize("kind", ["draw", "blur", "crop"])
def test_pictures_of_another_runs_file_are_not_painted_over(
    backend: SquareFinder, folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = folder / "x" / "a.png", folder / "y" / "a.png"
    for file, squares in ((first, [(10, 10, 20)]), (second, [(60, 60, 30)])):
        file.parent.mkdir()
        cv2.imwrite(str(file), draw_squares((100, 120), squares))
    place = {"draw": "drawn/a.png", "blur": "blurred/a.png", "crop": "crops/a.png/0001.png"}[kind]
    assert run(folder, f"--{kind}", inputs=(str(first.parent),)) == 0
    before = (folder / "out" / place).read_bytes()
    for inputs in [(str(second.parent),), (str(second),)]:
        assert run(folder, f"--{kind}", inputs=inputs) == 1
        printed = capsys.readouterr().err
        assert str(first) in printed
        assert str(second) in printed
        assert (folder / "out" / place).read_bytes() == before
    # Together they have names of their own, and what has another name now is done again.
    backend.calls.clear()
    for _ in range(2):
        both = (str(first.parent), str(second.parent))
        assert run(folder, f"--{kind}", inputs=both) == 0
    assert sum(map(len, backend.calls)) == 2
    places = [folder / "out" / place.replace("a.png", f"{name}/a.png", 1) for name in "xy"]
    assert places[0].read_bytes() == before != places[1].read_bytes()
    assert run(folder, f"--{kind}", inputs=(str(first.parent),)) == 0
    assert sum(map(len, backend.calls)) == 2  # under its first name it is there too
    shutil.copy2(first, folder / "kept.png")
    cv2.imwrite(str(first), draw_squares((100, 120), [(40, 10, 50)]))
    for inputs in (both, (str(first.parent),)):
        assert run(folder, f"--{kind}", inputs=inputs) == 0
    assert (folder / "out" / place).read_bytes() == places[0].read_bytes() != before
    shutil.copy2(folder / "kept.png", first)  # as it was, and at the time it was
    assert run(folder, f"--{kind}", inputs=(str(first.parent),)) == 0
    assert (folder / "out" / place).read_bytes() == before
    records = json.loads((folder / "out/detections.json").read_text())
    assert "pictures" not in records[0]


def test_pictures_of_one_run_have_names_of_their_own(
    backend: SquareFinder, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    png = folder / "images/a/one.png"
    png.rename(png.with_name("one.gif.png"))
    Image.new("RGB", (30, 20)).save(png.with_name("one.gif"))
    assert run(folder) == run(folder, "--crop", "--output", str(folder / "crops")) == 0
    assert run(folder, "--draw", "--output", str(folder / "drawn")) == 1
    printed = capsys.readouterr().err
    assert "drawn/drawn/a/one.gif.png would be the picture of both " in printed
    assert not list((folder / "drawn").rglob("*.png"))


def test_a_restart_does_only_what_is_left(backend: SquareFinder, folder: Path) -> None:
    run(folder)
    first = (folder / "out/detections.json").read_bytes()
    journal = folder / "out/journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    # As a kill leaves it: one image done, the next record half written, no result file.
    journal.write_text(lines[0] + lines[1][:30])
    (folder / "out/detections.json").unlink()
    backend.calls.clear()
    assert run(folder) == 0
    assert sum(map(len, backend.calls)) == 2
    assert (folder / "out/detections.json").read_bytes() == first
    backend.calls.clear()
    assert run(folder) == 0
    assert backend.calls == []


def test_a_stopped_run_goes_on(
    backend: SquareFinder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(images: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backend, "detect", interrupted)
        assert run(folder, "--batch-size", "1") == 130
    assert not (folder / "out/detections.json").exists()
    assert run(folder, "--batch-size", "1") == 0
    assert boxes_of(json.loads((folder / "out/detections.json").read_text())) == EXPECTED


def test_other_settings_need_another_folder(
    backend: SquareFinder, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder)
    assert run(folder, "--draw") == 1
    assert "other settings (draw)" in capsys.readouterr().err
    (folder / "weights.pth").write_bytes(b"others")
    assert run(folder) == 1
    assert "(model_sha256)" in capsys.readouterr().err


def test_a_run_that_failed_before_any_result_does_not_bind_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(options: Any) -> FaceDetector:
        raise ValueError("weights of another network")

    with monkeypatch.context() as patch:
        patch.setattr(job, "_detector", refuse)
        assert run(folder, "MODEL.DEVICE", "wrong") == 1
    assert "weights of another network" in capsys.readouterr().err
    monkeypatch.setattr(job, "_detector", lambda _job: FaceDetector(SquareFinder()))
    assert run(folder) == 0
    assert run(folder, "--draw") == 1
    assert "other settings (draw)" in capsys.readouterr().err


def test_a_changed_file_is_done_again(backend: SquareFinder, folder: Path) -> None:
    assert run(folder, "--crop") == 0
    time = os.stat(folder / "images/a/one.png").st_mtime_ns
    cv2.imwrite(str(folder / "images/b/two.png"), draw_squares((120, 160), [(10, 20, 50)]))
    os.utime(folder / "images/a/one.png", ns=(time + 10**9, time + 10**9))  # of the same size
    backend.calls.clear()
    assert run(folder, "--crop") == 0
    assert sum(map(len, backend.calls)) == 2
    text = (folder / "out/detections.json").read_text()
    assert boxes_of(json.loads(text)) == {**EXPECTED, "b/two.png": [[10, 20, 60, 70]]}
    assert "mtime_ns" not in text  # the journal's alone
    assert len(list((folder / "out/crops/b/two.png").iterdir())) == 1  # there were two
    backend.calls.clear()
    assert run(folder, "--crop") == 0
    assert backend.calls == []


def test_what_follows_the_shards_counts(backend: SquareFinder, folder: Path) -> None:
    """A file that changed, and one that failed and did not change, are done again, once."""
    failing = folder / "images/a/none.png"
    picture, time = failing.read_bytes(), os.stat(failing).st_mtime_ns
    failing.write_bytes(bytes(len(picture)))
    os.utime(failing, ns=(time, time))
    for part in (1, 2):
        assert run(folder, "--shard", f"{part}/2") == 0
    failing.write_bytes(picture)
    os.utime(failing, ns=(time, time))
    cv2.imwrite(str(folder / "images/b/two.png"), draw_squares((60, 60), [(5, 5, 20)]))
    for images in (2, 0):
        backend.calls.clear()
        assert run(folder) == 0
        assert sum(map(len, backend.calls)) == images
        records = json.loads((folder / "out/detections.json").read_text())
        assert boxes_of(records) == {**EXPECTED, "b/two.png": [[5, 5, 25, 25]]}


def test_a_journal_without_sizes_and_times_is_read(backend: SquareFinder, folder: Path) -> None:
    run(folder)
    first = (folder / "out/detections.json").read_bytes()
    journal = folder / "out/journal.jsonl"
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    for record in records:
        del record["size"], record["mtime_ns"]
    journal.write_text("".join(json.dumps(record) + "\n" for record in records))
    backend.calls.clear()
    assert run(folder) == 0
    assert backend.calls == []
    assert (folder / "out/detections.json").read_bytes() == first


def test_a_config_that_was_edited_is_another_setting(
    backend: SquareFinder, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, config = folder / "base.yaml", folder / "config.yaml"
    base.write_text("VERSION: 2\nMODEL:\n  LFFD:\n    SCORE_THRESH_TEST: 0.2\n")
    config.write_text("_BASE_: base.yaml\nINPUT:\n  MIN_SIZE_TEST: 0\n")
    assert run(folder, "--config-file", str(config)) == 0
    config.write_text("# a remark\n" + config.read_text())
    assert run(folder, "--config-file", str(config)) == 0
    base.write_text(base.read_text().replace("0.2", "0.9"))
    assert run(folder, "--config-file", str(config)) == 1
    assert "other settings (config_sha256)" in capsys.readouterr().err


def test_a_misspelt_key_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "MODEL.LFFD.NMS_THRES", "0.3") == 1
    printed = capsys.readouterr().err
    assert "Non-existent key: MODEL.LFFD.NMS_THRES; did you mean" in printed
    assert "Traceback" not in printed
    assert not (folder / "out").exists()


def test_a_broken_image_is_reported_tried_again_and_stops_nothing(
    backend: SquareFinder, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = folder / "images/a/later.png"
    broken.write_bytes(b"\x89PNG nothing")
    assert run(folder) == 1
    assert "a/later.png: UnreadableImageError: " in capsys.readouterr().err
    records = json.loads((folder / "out/detections.json").read_text())
    assert [r["name"] for r in records if "error" in r] == ["a/later.png"]
    assert len(records) == 4
    cv2.imwrite(str(broken), draw_squares((50, 50), [(5, 5, 20)]))
    backend.calls.clear()
    assert run(folder) == 0
    assert sum(map(len, backend.calls)) == 1
    records = json.loads((folder / "out/detections.json").read_text())
    assert boxes_of(records) == {**EXPECTED, "a/later.png": [[5, 5, 25, 25]]}


LATIN_1 = os.fsdecode(b"caf\xe9.png")


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "coco", "txt"])
def test_a_name_that_is_not_utf_8_is_escaped(
    backend: SquareFinder, folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "images/a/one.png").rename(folder / "images/a" / LATIN_1)
    for _ in range(2):
        assert run(folder, "--format", kind, "--draw", "--crop") == 0
    assert "3 of 3 are finished already" in capsys.readouterr().err
    assert (folder / "out/drawn/a" / LATIN_1).is_file()
    assert (folder / "out/crops/a" / LATIN_1 / "0001.png").is_file()
    if kind == "txt":
        assert sorted(read_predictions(folder / "out/txt"))[0] == f"a/{LATIN_1[:-4]}"
        return
    text = next((folder / "out").glob("detections.*")).read_text(encoding="utf-8")
    assert "a/caf\\udce9.png" in text
    if kind == "json":
        assert [r["name"] for r in json.loads(text)] == [f"a/{LATIN_1}", "a/none.png", "b/two.png"]


def test_a_picture_that_cannot_be_written_is_its_images_own_error(
    backend: SquareFinder,
    folder: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wide = folder / "images/a/wide.jpg"
    Image.new("RGB", (70_000, 20)).save(wide, "PNG")
    save = Image.Image.save

    def limited(image: Image.Image, *given: Any, **options: Any) -> None:
        if image.width > 65_535:
            raise OSError("encoder error")
        save(image, *given, **options)

    monkeypatch.setattr(Image.Image, "save", limited)
    Image.new("RGB", (30, 20)).save(folder / "images" / ("n" * 251 + ".gif"))  # .png is added
    long = "m" * 246 + ".png"
    Image.new("RGB", (30, 20)).save(folder / "images" / long)
    clip.rename(folder / "images" / os.fsdecode(b"caf\xe9.avi"))
    assert run(folder, "--draw") == 1
    printed = capsys.readouterr().err
    assert "a/wide.jpg: OSError: " in printed
    assert "cannot write 20 x 70000 pixels as PNG (encoder error)" in printed
    assert "caf\\udce9.avi: not a UTF-8 path, which videos need" in printed
    records = json.loads((folder / "out/detections.json").read_text())
    assert {r["name"][-8:] for r in records if "error" in r} == {
        "wide.jpg",
        "nnnn.gif",
        os.fsdecode(b"caf\xe9.avi"),
    }
    assert {*SQUARES, long} == {r["name"] for r in records if "error" not in r}
    assert (folder / "out/drawn" / long).is_file()


def stdin(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(os.fsencode(text)), encoding="utf-8")


def test_files_globs_and_stdin(
    backend: SquareFinder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder / "images"
    glob = str(images / "a" / "n*.png")
    (images / "a/one.png").rename(images / "a" / LATIN_1)
    monkeypatch.setattr(sys, "stdin", stdin(f"{images / 'a' / LATIN_1}\r\n\n"))
    assert run(folder, inputs=(str(images / "b/two.png"), glob, "-")) == 0
    records = json.loads((folder / "out/detections.json").read_text())
    assert [r["name"] for r in records] == ["b/two.png", "a/none.png", f"a/{LATIN_1}"]


def test_an_empty_list_is_an_error(
    backend: SquareFinder,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin("\n"))
    assert run(folder, inputs=("-",)) == 1
    assert "the list on stdin is empty" in capsys.readouterr().err


def test_pictures_of_an_earlier_run_are_no_inputs(backend: SquareFinder, folder: Path) -> None:
    for _ in range(2):
        assert run(folder, "--draw", "--output", str(folder / "images/out")) == 0
    records = json.loads((folder / "images/out/detections.json").read_text())
    assert len(records) == 3


def test_shards_then_the_whole(backend: SquareFinder, folder: Path) -> None:
    for part in (1, 2):
        assert run(folder, "--shard", f"{part}/2") == 0
        assert not (folder / "out/detections.json").exists()
    assert sum(map(len, backend.calls)) == 3
    backend.calls.clear()
    assert run(folder) == 0
    assert backend.calls == []
    records = json.loads((folder / "out/detections.json").read_text())
    assert boxes_of(records) == EXPECTED
    assert [r["name"] for r in records] == sorted(SQUARES)


def test_shards_of_pictures_then_a_changed_file(backend: SquareFinder, folder: Path) -> None:
    for part in (1, 2):
        assert run(folder, "--blur", "--shard", f"{part}/2") == 0
    cv2.imwrite(str(folder / "images/a/one.png"), draw_squares((120, 160), []))
    backend.calls.clear()
    for _ in range(2):
        assert run(folder, "--blur") == 0
    assert sum(map(len, backend.calls)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.jpg", "--model", "lffd-20l5s", "--onnx", "o"], "choose one model"),
        (["x.jpg", "--weights", "w"], "--weights needs --config-file"),
        (["x.jpg", "--config-file", "c", "--onnx", "o"], "choose one model"),
        (["x.jpg", "--config-file", "c"], "needs --weights"),
        (["x.jpg", "--onnx", "o", "--device", "cpu"], "are for --config-file"),
        (["x.jpg", "--device", "cuda"], "are for --config-file"),
        (["x.jpg", "--model", "lffd-20l5s", "MODEL.NMS_THRESH", "1"], "are for --config-file"),
        (["x.jpg", "--onnx", "o", "--shard", "3/2"], "expected I/N"),
        (["x.jpg", "--onnx", "o", "--shard", "half"], "'half': expected I/N"),
        (["x.jpg", "--onnx", "o", "--num-processes", "2"], "need --config-file"),
        (["x.jpg", "--min-size", "big"], "big: expected a number of pixels, 0 or more"),
        (["a.mp4", "b.mp4", "--tracks", "t.json"], "--tracks needs exactly one video"),
    ],
)
def test_bad_command_lines(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("missing.jpg", "no such file or folder"),
        ("*.nothing", "contains no images or videos"),
        ("empty", "contains no images or videos"),
    ],
)
def test_inputs_that_are_not_there(
    backend: SquareFinder,
    folder: Path,
    word: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "empty").mkdir()
    assert run(folder, inputs=(str(folder / word),)) == 1
    assert message in capsys.readouterr().err


def test_transport_streams_are_videos_where_they_are_named(
    backend: SquareFinder, folder: Path
) -> None:
    """.ts is TypeScript, too."""
    source = folder / "images/a/app.ts"
    source.write_text("export const answer = 42;")
    images = folder / "images"
    for inputs, names in [
        ((str(images),), sorted(SQUARES)),
        ((str(images / "a/*"),), ["none.png", "one.png"]),
    ]:
        assert [s.name for s in find_inputs(inputs).sources] == names
    for word in (str(source), str(images / "*/*.ts")):
        assert [(s.kind, s.file) for s in find_inputs([word]).sources] == [("video", str(source))]


# --- videos


def frame_squares(number: int) -> list[tuple[int, int, int]]:
    """A square that moves right in all frames, one that moves down in every frame but the tens'."""
    moving = [(4 + number, 10, 24)]
    return moving if number % 10 == 0 else [*moving, (250, 6 + number % 80, 30)]


@pytest.fixture
def clip(folder: Path) -> Path:
    """200 frames of 120 x 320 at 12.5 frames a second."""
    path = folder / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (320, 120))
    for number in range(200):
        image = np.full((120, 320, 3), 90, np.uint8)
        for x, y, side in frame_squares(number):
            image[y : y + side, x : x + side] = (0, 255, 0)
        writer.write(image)
    writer.release()
    return path


def test_a_video_of_200_frames(
    backend: SquareFinder, folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0
    reader = type(video.open_reader(find_inputs([str(clip)]).sources[0]))
    read = reader.__iter__

    class Counted(np.ndarray):
        """Can be counted while it lives."""

        __hash__ = object.__hash__

    def counted(self: video.Reader) -> Iterator[video.Frame]:
        nonlocal most
        for frame in read(self):
            marked = frame.pixels.view(Counted)
            alive.add(marked)
            most = max(most, len(alive))
            yield video.Frame(marked, frame.time)

    monkeypatch.setattr(reader, "__iter__", counted)
    assert run(folder, "--draw", "--blur", "--crop", inputs=(str(clip),)) == 0
    # A batch of 8, the frame that closes it, the one in hand; a second that waits to be blurred.
    assert most <= 10 + 14

    records = json.loads((folder / "out/detections.json").read_text())
    assert [r["frame"] for r in records] == list(range(200))
    assert [r["time"] for r in records] == [round(n / 12.5, 6) for n in range(200)]
    for record in records:
        expected = sorted([x, y, x + s, y + s] for x, y, s in frame_squares(record["frame"]))
        found = sorted(face["box"] for face in record["faces"])
        np.testing.assert_allclose(found, expected, atol=2)
    for kind in ("drawn", "blurred"):
        capture = cv2.VideoCapture(str(folder / "out" / kind / "clip.avi.mp4"))
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
        count = 0
        while True:
            there, frame = capture.read()
            if not there:
                break
            assert frame.shape == (120, 320, 3)
            count += 1
        assert count == 200
    assert len(list((folder / "out/crops/clip.avi").iterdir())) == 380


def test_a_video_that_was_interrupted_is_done_anew(
    backend: SquareFinder, folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(10, backend, patch)  # frame 80
        assert run(folder, "--draw", inputs=(str(clip),)) == 130
    assert list((folder / "out/drawn").iterdir()) == []  # no half video
    assert run(folder, "--draw", inputs=(str(clip),)) == 0
    records = json.loads((folder / "out/detections.json").read_text())
    assert [r["frame"] for r in records] == list(range(200))
    backend.calls.clear()
    assert run(folder, "--draw", inputs=(str(clip),)) == 0
    assert backend.calls == []


def test_videos_that_cannot_be_read(
    backend: SquareFinder, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.mp4").write_bytes(b"no video")
    image = str(folder / "images/a/one.png")
    assert run(folder, inputs=(str(folder / "broken.mp4"), image, "97")) == 1
    printed = capfd.readouterr().err
    assert "broken.mp4: broken.mp4: cannot be opened as a video" in printed
    assert "no such camera" in printed
    records = json.loads((folder / "out/detections.json").read_text())
    assert [len(r.get("faces", [])) for r in records] == [0, 1, 0]


def test_a_camera_runs_for_the_frames_asked(
    backend: SquareFinder, folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera is a capture opened by number; here the clip stands in for it."""
    opened: list[object] = []
    capture = cv2.VideoCapture

    def open_capture(which: object) -> cv2.VideoCapture:
        opened.append(which)
        return capture(str(clip))

    monkeypatch.setattr(cv2, "VideoCapture", open_capture)
    for _ in range(2):  # never done
        assert run(folder, "--max-frames", "5", inputs=("0",)) == 0
    assert opened == [0, 0]
    records = json.loads((folder / "out/detections.json").read_text())
    assert [(r["name"], r["frame"]) for r in records] == [("camera-0", n) for n in range(5)]
    times = [record["time"] for record in records]
    assert times[0] == 0
    assert times == sorted(set(times))  # those at which the frames came


@pytest.mark.parametrize("while_detecting", [True, False])
def test_ctrl_c_keeps_what_a_camera_has_recorded(
    backend: SquareFinder,
    folder: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    while_detecting: bool,
) -> None:
    """Also in the middle of the work on a frame, which is finished first."""
    capture, hidden = cv2.VideoCapture, Pictures.hidden
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture(str(clip)))
    seen: list[object] = []

    def hide(pictures: Pictures, result: FaceResult) -> FaceResult:
        seen.append(result)
        if not while_detecting and len(seen) == 12:
            signal.raise_signal(signal.SIGINT)
        return hidden(pictures, result)

    monkeypatch.setattr(Pictures, "hidden", hide)
    if while_detecting:
        interrupt_at(2, backend, monkeypatch)  # after 16 frames
    assert run(folder, "--blur", inputs=("0",)) == 130
    assert len(seen) == (16 if while_detecting else 12)
    recorded = capture(str(folder / "out/blurred/camera-0.mp4"))
    # A clip in place of a camera is faster than its clock: frames of one instant are one.
    assert len(seen) // 2 <= sum(recorded.read()[0] for _ in range(30)) <= len(seen)


# --- with a network


def test_reference_boxes_by_the_command_line(
    repo: Path,
    test_data: Path,
    tmp_path: Path,
    released_weights: Path,
    assert_reference: Callable[[str, Any, Any], None],
) -> None:
    photos = [str(test_data / "photos" / name) for name in REFERENCE_PHOTOS]
    words = ["--config-file", "lffd/lffd_17L4S.yaml", "--weights", str(released_weights)]
    words += ["--score-threshold", "0.3", "--output", str(tmp_path / "out"), "--device", "cpu"]
    words += ["MODEL.LFFD.NMS_TYPE", "iom", "MODEL.LFFD.NMS_THRESH_TEST", "0.3"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "tools/predict.py", *photos, *words],
        cwd=repo,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr  # progress
    records = json.loads((tmp_path / "out/detections.json").read_text())
    assert [r["name"] for r in records] == REFERENCE_PHOTOS
    for record in records:
        faces = record["faces"]
        assert_reference(record["name"], [f["box"] for f in faces], [f["score"] for f in faces])


def test_two_processes_equal_one(
    tiny_files: dict[str, tuple[Path, Path]], tmp_path: Path, repo: Path
) -> None:
    config, weights = tiny_files["lffd"]
    (tmp_path / "images").mkdir()
    for seed in range(5):
        image = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{seed}.png"), image)
    words = [str(tmp_path / "images"), "--config-file", str(config), "--weights", str(weights)]
    words += ["--device", "cpu", "--batch-size", "1"]
    # One thread each: sums over several are added in another order, and the last digit may move.
    for output, processes in (("one", "1"), ("two", "2")):
        done = subprocess.run(
            [
                *[sys.executable, "-W", "ignore", "tools/predict.py", *words],
                *["--output", str(tmp_path / output), "--num-processes", processes],
            ],
            cwd=repo,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "two").glob("journal.part-*"))) == 2
    results = [(tmp_path / name / "detections.json").read_text() for name in ("one", "two")]
    assert results[0] == results[1]
