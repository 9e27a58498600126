"""The command line on what people have: odd files, pages, videos with sound."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.clips import CONSTANT, VARIABLE, frame_times, seconds, sound_packets, write_clip
from helpers.image_files import encoded, picture
from helpers.predictors import SquareFinder, draw_squares, interrupt_at
from numpy.typing import NDArray
from PIL import Image

from face_d2 import FaceDetector
from face_d2.cli import predict as command
from face_d2.predictor import job


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> SquareFinder:
    """Puts the finder of squares in the network's place."""
    backend = SquareFinder()
    monkeypatch.setattr(
        job, "_detector", lambda given: FaceDetector(backend, batch_size=given.batch_size)
    )
    return backend


def run(folder: Path, *words: str) -> int:
    (folder / "model.onnx").write_bytes(b"a model")
    model = ["--onnx", str(folder / "model.onnx"), "--output", str(folder / "out")]
    return command.main([*words, *model])


def records(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "out/detections.json").read_text())


def image_of(*squares: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(draw_squares((120, 160), squares)[..., ::-1])


def test_everything_in_a_folder_is_done_or_named(
    backend: SquareFinder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    album, elsewhere = tmp_path / "photos", tmp_path / "nas/album"
    for folder in (album, elsewhere):
        folder.mkdir(parents=True)
    jpeg = encoded(image_of((50, 50, 40)), "JPEG", quality=95)
    for name in ("a.jpg", "b.jfif", "no_ending", "c.JPE"):
        (album / name).write_bytes(jpeg)
    (elsewhere / "linked.jpg").write_bytes(jpeg)
    (album / "e").symlink_to(elsewhere)
    (album / "notes.txt").write_text("no picture")
    assert run(tmp_path, str(album), "--blur") == 0
    printed = capsys.readouterr().err
    assert "5 inputs" in printed
    assert "not searched: 1 x neither a picture nor a video (" in printed
    assert "EXIF data (place, time, camera) are not in the blurred pictures" in printed
    left = json.loads((tmp_path / "out/not_searched.json").read_text())
    assert [Path(one["name"]).name for one in left] == ["notes.txt"]
    for name in ("a.jpg", "b.jfif", "no_ending", "c.JPE", "e/linked.jpg"):
        with Image.open(tmp_path / "out/blurred" / name) as copy:
            assert copy.format == "JPEG"
    assert all(len(record["faces"]) == 1 for record in records(tmp_path))


def test_what_cannot_be_read_ends_with_status_1_and_its_reason(
    backend: SquareFinder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    album = tmp_path / "photos"
    album.mkdir()
    image_of().save(album / "a.png")
    (album / "c.jxl").write_bytes(b"\xff\x0a" + bytes(100))
    (album / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    assert run(tmp_path, str(album), "--blur") == 1
    printed = capsys.readouterr().err
    assert "is JPEG XL, which is not read; convert it to JPEG or PNG" in printed
    assert "not searched: 1 x broken link" in printed
    (album / "c.jxl").unlink()
    assert run(tmp_path, str(album), "--blur") == 1
    (album / "gone.jpg").unlink()
    assert run(tmp_path, str(album), "--blur") == 0
    assert not (tmp_path / "out/not_searched.json").exists()


def test_all_pages_and_frames_are_searched_and_hidden(
    backend: SquareFinder, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    pages = [image_of(), image_of((50, 50, 40)), image_of((10, 20, 30), (60, 30, 20))]
    for name in ("pages.tif", "moving.gif"):
        pages[0].save(tmp_path / "in" / name, save_all=True, append_images=pages[1:])
    words = [str(tmp_path / "in"), "--blur", "--crop", "--redact", "box"]
    for _ in range(2):
        assert run(tmp_path, *words) == 0
    found = {(r["name"], r["page"]): len(r["faces"]) for r in records(tmp_path)}
    for name in ("pages.tif", "moving.gif"):
        assert [found[name, page] for page in range(3)] == [0, 1, 2]
    assert sum(map(len, backend.calls)) == 6  # once
    for name in ("pages.tif", "moving.gif.png"):
        with Image.open(tmp_path / "out/blurred" / name) as copy:
            assert copy.n_frames == 3
            for number, page in enumerate(pages):
                copy.seek(number)
                pixels = np.asarray(copy.convert("RGB"))
                assert SquareFinder._find(pixels[..., ::-1]).boxes.size == 0
                if name == "pages.tif":
                    same = (pixels == np.asarray(page)).all(axis=2)
                    assert same[:15].all()
                    assert same[:, 105:].all()
    crops = sorted(p.name for p in (tmp_path / "out/crops/pages.tif").iterdir())
    assert crops == ["000001-0001.png", "000002-0001.png", "000002-0002.png"]
    for kind in ("csv", "coco"):
        assert run(tmp_path, *words, "--format", kind) == 0
    rows = (tmp_path / "out/detections.csv").read_text().splitlines()
    assert rows[1] == "moving.gif,0,,,,,,,"
    assert rows[2].startswith("moving.gif,1,")
    assert '"pages.tif#2"' in (tmp_path / "out/detections.coco.json").read_text()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_a_face_of_an_animation_is_hidden_in_the_frames_that_are_missed(
    backend: SquareFinder, tmp_path: Path, kind: str
) -> None:
    """Every fifth frame is missed. The pages of a TIFF are no film: there nothing is made up."""
    frames = [image_of(*out_of_focus(n / 10, n)) for n in range(20)]
    path = tmp_path / f"a.{kind.lower()}"
    options = {"WEBP": {"lossless": True}, "TIFF": {}}.get(kind, {})
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=100, **options)
    assert run(tmp_path, str(path), "--blur", "--redact", "box") == 0
    name = path.name + ".png" if kind == "GIF" else path.name
    with Image.open(tmp_path / "out/blurred" / name) as copy:
        assert copy.n_frames == 20
        for number in range(20):
            copy.seek(number)
            pixels = np.asarray(copy.convert("RGB"))
            missed = number % 5 == 4 and kind == "TIFF"
            assert [covered(pixels, s) for s in scene(number / 10, number)] == [not missed] * 2


def test_the_first_page_alone_on_request(backend: SquareFinder, tmp_path: Path) -> None:
    pages = [image_of((50, 50, 40)), image_of()]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert run(tmp_path, str(tmp_path / "pages.tif"), "--first-page", "--blur") == 0
    (record,) = records(tmp_path)
    assert "page" not in record
    with Image.open(tmp_path / "out/blurred/pages.tif") as copy:
        assert copy.n_frames == 1


def test_a_blurred_png_is_equal_outside_the_faces(backend: SquareFinder, tmp_path: Path) -> None:
    """With 16 bits a channel and transparency."""
    deep = draw_squares((120, 160), [(50, 50, 40)]).astype(np.uint16) * 257
    deep += np.random.default_rng(0).integers(0, 256, deep.shape, dtype=np.uint16) * (deep < 65_000)
    deep = np.dstack([deep, np.random.default_rng(1).integers(0, 65_536, (120, 160))])
    cv2.imwrite(str(tmp_path / "a.png"), deep.astype(np.uint16))
    assert run(tmp_path, str(tmp_path / "a.png"), "--blur", "--redact", "box") == 0
    copy = cv2.imread(str(tmp_path / "out/blurred/a.png"), cv2.IMREAD_UNCHANGED)
    assert copy.dtype == np.uint16
    outside = np.ones((120, 160), bool)
    outside[44:96, 44:96] = False
    np.testing.assert_array_equal(copy[outside], deep[outside])
    np.testing.assert_array_equal(copy[..., 3], deep[..., 3])
    assert not copy[~outside][:, :3].any()


@pytest.mark.parametrize("style", ["box", "pixelate", "mosaic"])
def test_other_ways_of_hiding(
    backend: SquareFinder, tmp_path: Path, style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image_of((50, 50, 40)).save(tmp_path / "a.png")
    assert run(tmp_path, str(tmp_path / "a.png"), "--blur", "--redact", style) == 0
    copy = cv2.imread(str(tmp_path / "out/blurred/a.png"))
    colors = len(np.unique(copy[46:94, 46:94].reshape(-1, 3), axis=0))
    assert colors == 1 if style == "box" else colors <= 25
    assert run(tmp_path, str(tmp_path / "a.png"), "--blur") == 1
    assert "other settings (redact)" in capsys.readouterr().err


# --- videos

Squares = Callable[[float, int], list[tuple[int, int, int]]]


def scene(time: float, number: int) -> list[tuple[int, int, int]]:
    """A square that moves right, and one that moves down until it leaves."""
    return [(round(10 + 30 * time), 20, 24), (110, round(30 + 40 * time), 30)]


def out_of_focus(time: float, number: int) -> list[tuple[int, int, int]]:
    """In every fifth frame the finder sees nothing."""
    return [] if number % 5 == 4 else scene(time, number)


def assert_same_frames(first: Path, second: Path) -> None:
    """Within what the encoder rounds differently from run to run (0.05 in the mean)."""
    shown, expected = (np.asarray(frames_of(file), np.float32) for file in (first, second))
    assert shown.shape == expected.shape
    difference = np.abs(shown - expected)
    assert difference.mean() < 0.5
    assert difference.max() < 40


def frames_of(path: Path) -> NDArray[np.uint8]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            return np.stack(frames)
        frames.append(frame)


def covered(pixels: NDArray[np.uint8], square: tuple[int, int, int]) -> bool:
    """Whether a frame of a copy with black boxes is black where a square is, or would be."""
    x, y, side = square
    part = pixels[max(y, 0) + 3 : y + side - 3, x + 3 : x + side - 3]
    return part.size == 0 or float((part.max(axis=2) < 40).mean()) > 0.9


def crossing(time: float, number: int) -> list[tuple[int, int, int]]:
    """Two squares that pass each other, the lower one partly behind the upper one."""
    return [(round(10 + 35 * time), 40, 24), (round(120 - 35 * time), 52, 24)]


@pytest.mark.parametrize("times", [CONSTANT, VARIABLE], ids=["constant", "variable"])
@pytest.mark.parametrize("squares", [scene, crossing])
def test_a_blur_holds_in_the_frames_that_are_missed(
    backend: SquareFinder, tmp_path: Path, times: list[float], squares: Squares
) -> None:
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")

    def shown(time: float, number: int) -> list[tuple[int, int, int]]:
        return [] if number % 5 == 4 else squares(time, number)

    clip = write_clip(tmp_path / "clip.MTS", times, shown, sound="aac", format="mpegts")
    assert run(tmp_path, str(clip), "--blur", "--redact", "box") == 0
    copy = tmp_path / "out/blurred/clip.MTS.mp4"
    assert [r["time"] for r in records(tmp_path)] == pytest.approx(times, abs=0.001)
    assert frame_times(copy) == pytest.approx(times, abs=0.002)
    assert seconds(copy) == pytest.approx(seconds(clip), abs=times[-1] - times[-2])  # a frame
    assert sound_packets(copy) == [packet[7:] for packet in sound_packets(clip)]
    capture = cv2.VideoCapture(str(copy))
    visible = total = 0
    for number, moment in enumerate(times):
        there, pixels = capture.read()
        assert there
        for square in squares(moment, number):
            total += 1
            visible += not covered(pixels, square)
    assert visible <= 0.005 * total


def test_tracks_can_be_edited_and_rendered_again(
    backend: SquareFinder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    clip = write_clip(tmp_path / "clip.mp4", CONSTANT[:20], scene)
    assert run(tmp_path, str(clip), "--blur") == 0
    path = tmp_path / "out/tracks/clip.mp4.json"
    frames = json.loads(path.read_text())
    assert len(frames) == 20
    assert {len(frame["faces"]) for frame in frames} == {2}
    words = [str(clip), "--tracks", str(path), "--output", str(tmp_path / "again")]
    backend.calls.clear()
    assert command.main(words) == 0
    again, first = tmp_path / "again/blurred/clip.mp4", tmp_path / "out/blurred/clip.mp4"
    assert_same_frames(again, first)
    for frame in frames:
        frame["faces"] = [{"track": 9, "box": [0, 0, 60, 60], "how": "by hand"}]
    path.write_text(json.dumps(frames))
    assert command.main([*words, "--redact", "box"]) == 0
    there, pixels = cv2.VideoCapture(str(tmp_path / "again/blurred/clip.mp4")).read()
    assert there
    assert pixels[:60, :60].max() < 40
    assert pixels[:, 80:, 1].min() > 40
    assert backend.calls == []
    path.write_text(json.dumps(frames[:5]))
    assert command.main(words) == 1
    assert "no frame 5; these are another video's tracks" in capsys.readouterr().err
    image_of().save(tmp_path / "a.png")
    assert command.main([str(tmp_path / "a.png"), *words[1:]]) == 1
    assert f"--tracks needs one video, and {tmp_path / 'a.png'} is none" in capsys.readouterr().err


def test_what_a_blurred_video_lacks_is_said_by_every_way_to_make_it(
    backend: SquareFinder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    clip = write_clip(tmp_path / "clip.mov", CONSTANT[:20], scene, sound="pcm_s16le")
    lost = "clip.mov: its copy lacks the coding of the sound (pcm_s16le becomes AAC)"
    assert run(tmp_path, str(clip), "--blur") == 0
    assert lost in capsys.readouterr().err
    tracks = str(tmp_path / "out/tracks/clip.mov.json")
    words = [str(clip), "--tracks", tracks, "--output", str(tmp_path / "again")]
    assert command.main(words) == 0
    assert lost in capsys.readouterr().err


def test_frames_that_a_damaged_video_lacks_are_counted(
    backend: SquareFinder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    clip = write_clip(tmp_path / "clip.mp4", CONSTANT[:20], scene)
    data = clip.read_bytes()
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    middle = (start + end) // 2
    clip.write_bytes(data[:middle] + bytes(end - middle) + data[end:])
    assert run(tmp_path, str(clip)) == 0
    count = len(records(tmp_path))
    assert 0 < count < 20
    said = f"clip.mp4: 20 frames are declared, {count} could be decoded"
    assert said in capsys.readouterr().err


#: A run whose network is the finder of squares, slowed down so that it can be killed.
_SLOW_RUN = """
import sys, time
from helpers.predictors import SquareFinder
from face_d2 import FaceDetector
from face_d2.cli.predict import main
from face_d2.predictor import job

class Slow(SquareFinder):
    def detect(self, images):
        time.sleep(0.2)
        return super().detect(images)

job._detector = lambda given: FaceDetector(Slow(), batch_size=given.batch_size)
sys.exit(main())
"""


def test_a_run_killed_by_the_system_leaves_no_half_video_and_starts_again_to_the_same(
    backend: SquareFinder, tmp_path: Path, repo: Path
) -> None:
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    clip = write_clip(tmp_path / "clip.mp4", CONSTANT, out_of_focus, sound="aac")
    (tmp_path / "model.onnx").write_bytes(b"a model")
    words = [str(clip), "--blur", "--onnx", str(tmp_path / "model.onnx"), "--output"]
    killed = subprocess.Popen(
        [sys.executable, "-c", _SLOW_RUN, *words, str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(repo / "tests")},
        cwd=repo,
        stderr=subprocess.DEVNULL,
    )
    journal, deadline = tmp_path / "out/journal.jsonl", time.monotonic() + 120
    while not journal.exists() or journal.read_bytes().count(b"\n") < 40:  # 32 are written
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    left = [p for kind in ("blurred", "tracks") for p in (tmp_path / "out" / kind).iterdir()]
    assert left
    assert all(path.name.startswith(".tmp-") for path in left)
    for place in ("out", "whole"):
        assert command.main([*words, str(tmp_path / place)]) == 0
    first, second = (tmp_path / place / "blurred/clip.mp4" for place in ("out", "whole"))
    tracks = [(tmp_path / place / "tracks/clip.mp4.json") for place in ("out", "whole")]
    assert tracks[0].read_text() == tracks[1].read_text()
    results = [(tmp_path / place / "detections.json").read_text() for place in ("out", "whole")]
    assert results[0] == results[1]
    assert_same_frames(first, second)
    assert sound_packets(first) == sound_packets(second) == sound_packets(clip)


def test_a_video_stopped_midway_leaves_nothing_and_starts_again_to_the_same(
    backend: SquareFinder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    clip = write_clip(tmp_path / "clip.mp4", CONSTANT, scene, sound="aac")
    with monkeypatch.context() as patch:
        interrupt_at(5, backend, patch)  # frame 40
        assert run(tmp_path, str(clip), "--blur") == 130
    left = [p for kind in ("blurred", "tracks") for p in (tmp_path / "out" / kind).rglob("*.*")]
    assert left == []
    assert run(tmp_path, str(clip), "--blur") == 0
    words = [str(clip), "--blur", "--output", str(tmp_path / "whole")]
    assert command.main([*words, "--onnx", str(tmp_path / "model.onnx")]) == 0
    first, second = (tmp_path / place / "blurred/clip.mp4" for place in ("out", "whole"))
    tracks = [(tmp_path / place / "tracks/clip.mp4.json") for place in ("out", "whole")]
    assert tracks[0].read_text() == tracks[1].read_text()
    assert_same_frames(first, second)
    assert sound_packets(first) == sound_packets(second) == sound_packets(clip)


def test_pictures_of_every_kind_at_once(backend: SquareFinder, tmp_path: Path) -> None:
    """Pictures without squares come back as they are."""
    plain = picture().point(lambda value: value // 2)
    (tmp_path / "in").mkdir()
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        plain.save(tmp_path / "in" / f"a.{kind.lower()}", kind)
    assert run(tmp_path, str(tmp_path / "in"), "--blur") == 0
    for name in ("a.png", "a.bmp", "a.tiff", "a.ppm.png"):
        with Image.open(tmp_path / "out/blurred" / name) as copy:
            np.testing.assert_array_equal(np.asarray(copy), np.asarray(plain))
