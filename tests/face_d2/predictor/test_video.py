"""Videos are read at their times and copied with their length and their sound."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.clips import CONSTANT, VARIABLE, frame_times, seconds, sound_packets, write_clip
from helpers.file_server import serve

from face_d2.predictor import video
from face_d2.predictor.drawing import hidden_corners
from face_d2.predictor.sources import Source, find_inputs
from face_d2.predictor.video import Frame, open_reader, open_sink

av = pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")


def copied(path: Path) -> tuple[Path, list[Frame], list[str]]:
    """A copy in which nothing is painted, the frames, and what the copy lacks."""
    (source,) = find_inputs([str(path)]).sources
    copy = path.with_name(f"copy of {path.name}.mp4")
    frames = []
    with open_reader(source) as reader, open_sink(copy, reader) as sink:
        for frame in reader:
            sink.write(frame)
            frames.append(frame)
    return copy, frames, reader.loses


@pytest.mark.parametrize("times", [CONSTANT, VARIABLE], ids=["constant", "variable"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.MTS", "clip.mkv", "no ending"])
def test_a_copy_has_the_times_length_and_sound_of_its_video(
    name: str, times: list[float], tmp_path: Path
) -> None:
    kind = {"clip.MTS": "mpegts", "no ending": "mp4"}.get(name)
    path = write_clip(tmp_path / name, times, sound="aac", format=kind)
    copy, frames, loses = copied(path)
    assert [frame.time for frame in frames] == pytest.approx(times, abs=0.001)
    assert frame_times(copy) == pytest.approx(times, abs=0.002)
    assert seconds(copy) == pytest.approx(seconds(path), abs=times[-1] - times[-2])  # a frame
    assert loses == []
    before, after = sound_packets(path), sound_packets(copy)
    # In a transport stream a header of seven bytes stands before every packet.
    assert after == [packet[7:] for packet in before] if kind == "mpegts" else after == before
    with av.open(str(copy)) as container:
        assert [s.codec_context.name for s in container.streams] == ["h264", "aac"]
        assert container.streams.video[0].pix_fmt == "yuv420p"  # what browsers play


def test_other_sound_is_coded_anew_and_that_is_said(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mov", CONSTANT, sound="pcm_s16le")
    copy, _, loses = copied(path)
    assert loses == ["the coding of the sound (pcm_s16le becomes AAC)"]
    assert len(sound_packets(copy)) > 100
    assert seconds(copy) == pytest.approx(seconds(path), abs=0.05)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_phones_video_is_upright(rotation: int, tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "clip.mp4", CONSTANT[:3], lambda *_: [(0, 0, 40)], rotation=rotation
    )
    copy, frames, _ = copied(path)
    corner = {90: (-20, 20), 180: (-20, -20), 270: (20, -20)}[rotation]  # counterclockwise
    for pixels in (frames[0].pixels, next(iter(open_reader(_source(copy)))).pixels):
        assert pixels.shape[:2] == ((120, 160) if rotation == 180 else (160, 120))
        assert pixels[corner][1] > 200


def test_pixels_hardly_change(tmp_path: Path) -> None:
    """No color moves: a gray stays that gray."""
    path = write_clip(tmp_path / "clip.mp4", CONSTANT[:10], lambda _, n: [(10 + 4 * n, 30, 40)])
    (source,) = find_inputs([str(path)]).sources
    for name in ("kept", "painted"):
        with open_reader(source) as reader, open_sink(tmp_path / name, reader) as sink:
            frames = list(reader)
            for frame in frames:
                sink.write(frame if name == "kept" else frame.painted(frame.exact))
        for before, after in zip(frames, open_reader(_source(tmp_path / name))):
            difference = after.exact.astype(int) - before.exact
            assert np.abs(difference).mean() < 1.2
            assert np.abs(difference.mean(axis=(0, 1))).max() < 0.5
            assert np.abs(before.exact[5:15].astype(int) - 90).max() <= 2
            assert np.abs(before.pixels.astype(int) - before.exact).mean() < 4  # for the search


def test_what_is_not_hidden_is_coded_again_without_a_conversion_of_its_colors(
    tmp_path: Path,
) -> None:
    """Squares are hidden at any place, odd ones and those on borders; the rest is as it was."""
    path = write_clip(tmp_path / "clip.mp4", CONSTANT[:8], lambda _, n: [(10 + 4 * n, 30, 40)])
    (source,) = find_inputs([str(path)]).sources
    boxes = [np.float32(box) for box in ([31, 33, 62, 66], [0, 0, 3, 3], [151, 90, 159, 119])]
    for name, kept in (("kept", True), ("converted", False)):
        copy = tmp_path / f"{name}.mp4"
        with open_reader(source) as reader, open_sink(copy, reader) as sink:
            for frame in reader:
                assert frame.coded is not None
                hidden = frame.without(boxes, "box")
                sink.write(hidden if kept else frame.painted(hidden.pixels))
    with av.open(str(path)) as before, av.open(str(tmp_path / "kept.mp4")) as after:
        pairs = zip(before.decode(video=0), after.decode(video=0))
        planes = [[frame.to_ndarray()[:120].astype(int) for frame in pair] for pair in pairs]
    changed = np.zeros((120, 160), bool)
    for x1, y1, x2, y2 in (hidden_corners((120, 160), box[None])[0] for box in boxes):
        changed[y1:y2, x1:x2] = True
    assert len(planes) == 8
    for old, new in planes:
        assert np.abs(new[changed] - 16).mean() < 2  # black
        far = cv2.dilate(changed.astype(np.uint8), np.ones((25, 25))) == 0
        assert np.abs(new[far] - old[far]).mean() < 0.5
    frames = [
        [frame.pixels.astype(int) for frame in open_reader(_source(tmp_path / f"{name}.mp4"))]
        for name in ("kept", "converted")
    ]
    for kept, converted in zip(*frames):
        assert np.abs(kept - converted).mean() < 1.0


def test_frames_of_another_size_are_brought_to_that_of_the_first(tmp_path: Path) -> None:
    parts = [
        write_clip(tmp_path / f"{size[0]}.h264", CONSTANT[:5], size=size, format="h264")
        for size in ((160, 120), (320, 240))
    ]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    _, frames, _ = copied(path)
    assert {frame.pixels.shape for frame in frames} == {(120, 160, 3)}
    assert len(frames) >= 9


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        track = container.add_stream("aac", rate=48_000)
        track.layout = "mono"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 48_000
        container.mux(track.encode(silence))
        container.mux(track.encode(None))
    for name, reason in (("broken.mp4", "cannot be opened"), ("sound.mp4", "there is no video")):
        with pytest.raises(ValueError, match=rf"{name}: {reason}"):
            open_reader(_source(tmp_path / name))


def damaged(path: Path, copy: Path, share: float) -> Path:
    """A copy of an .mp4 in which the last part of the coded frames is zeros."""
    data = path.read_bytes()
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    start += round((end - start) * (1 - share))
    copy.write_bytes(data[:start] + bytes(end - start) + data[end:])
    return copy


@pytest.mark.parametrize("pyav", [True, False])
def test_damaged_videos_are_read_as_far_as_they_go(
    pyav: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(video, "_has_pyav", lambda: pyav)
    path = write_clip(tmp_path / "clip.mp4", CONSTANT[:20], lambda _, n: [(10 + 4 * n, 30, 40)])
    half = damaged(path, tmp_path / "half.mp4", 0.5)
    with open_reader(_source(half)) as reader:
        frames = list(reader)
        assert 0 < len(frames) < reader.frames == 20
    if pyav:
        assert f"half.mp4: damaged after frame {len(frames)}" in capsys.readouterr().err
    with (
        open_reader(_source(damaged(path, tmp_path / "all.mp4", 1))) as reader,
        pytest.raises(ValueError, match=r"all\.mp4: no frame can be decoded"),
    ):
        list(reader)


def test_what_a_copy_lacks_is_said(tmp_path: Path) -> None:
    several = write_clip(tmp_path / "several.mkv", CONSTANT[:5], sound="aac", tracks=3)
    assert copied(several)[2] == ["2 tracks besides (subtitles, data, other pictures)"]
    wide = write_clip(tmp_path / "wide.mp4", CONSTANT[:5], colors=9)  # BT.2020
    assert copied(wide)[2] == ["its wide range of colors"]


def test_a_video_on_a_server_ends_and_a_live_stream_has_no_length(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", CONSTANT[:5], sound="aac")
    options = {"format": "matroska", "options": {"live": "1"}}
    live = write_clip(tmp_path / "live.mkv", CONSTANT[:5], sound="aac", **options)
    for file, lost in ((path, []), (live, ["the sound of the stream"])):
        with serve(file.read_bytes()) as server:
            (source,) = find_inputs([server.url]).sources
            with open_reader(source) as reader:
                assert reader.live == (file == live)
                assert reader.loses == lost
                assert reader.frames == (0 if file == live else 5)
                assert reader.live or len(list(reader)) == 5


def test_a_camera_that_states_no_rate_has_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Camera:
        def __init__(self, number: int) -> None:
            assert number == 3

        def isOpened(self) -> bool:
            return True

        def get(self, what: int) -> float:
            return {cv2.CAP_PROP_FPS: 0.0}[what]

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    (source,) = find_inputs(["3"]).sources
    assert (open_reader(source).fps, open_reader(source).frames) == (25, 0)


@pytest.mark.parametrize("pyav", [True, False])
def test_a_video_that_cannot_be_written_is_named(
    pyav: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "_has_pyav", lambda: pyav)
    reader = open_reader(_source(write_clip(tmp_path / "clip.mp4", CONSTANT[:5])))
    point = Frame(np.zeros((1, 1, 3), np.uint8), 0.0)
    with (
        pytest.raises(OSError, match=r"copy\.mp4: .*cannot (hold|write)"),
        open_sink(tmp_path / "copy.mp4", reader) as sink,
    ):
        sink.write(point)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """A limit for the size of files stands in for it."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    reader = open_reader(_source(write_clip(tmp_path / "clip.mp4", CONSTANT[:5])))

    def write(count: int) -> None:
        with open_sink(tmp_path / "copy.mp4", reader) as sink:
            for number in range(count):
                sink.write(Frame(np.roll(noise, 7 * number, axis=1), number / 25))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        for count in (2, 100):  # at the end, and before it
            with pytest.raises(OSError, match=r"copy\.mp4: cannot be written \(File too large"):
                write(count)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_an_error_leaves_no_copy(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", CONSTANT, sound="aac")

    def interrupted() -> None:
        with open_reader(_source(path)) as reader, open_sink(tmp_path / "copy.mp4", reader) as sink:
            for frame in reader:
                sink.write(frame)
                if frame.time > 1:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("times", [CONSTANT, VARIABLE], ids=["constant", "variable"])
def test_without_pyav_the_length_stays_and_the_loss_is_said(
    times: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "clip.mp4", times, sound="aac")
    monkeypatch.setattr(video, "_has_pyav", lambda: False)
    copy, frames, loses = copied(path)
    assert [frame.time for frame in frames] == pytest.approx(times, abs=0.001)
    assert seconds(copy) == pytest.approx(times[-1], abs=0.25)
    assert "sound, if the video has any" in loses
    with pytest.raises(ValueError, match=r"reading streams needs PyAV.*face-d2\[video\]"):
        open_reader(find_inputs(["rtsp://10.0.0.1/live"]).sources[0])


def test_addresses_are_inputs_and_their_passwords_are_not_shown() -> None:
    words = [
        "rtsp://user:geheim@10.0.0.1:554/live?key=secret",
        "rtsp://user:other@10.0.0.1:554/live",
    ]
    first, second = find_inputs(words).sources
    assert (first.kind, first.file) == ("stream", "rtsp://10.0.0.1:554/live")
    assert first.name != second.name
    assert "geheim" not in repr(first) + first.name
    assert first.address == words[0]


def test_a_stream_that_cannot_be_reached_is_named_without_its_password() -> None:
    (source,) = find_inputs(["http://user:geheim@127.0.0.1:9/live.mp4"]).sources
    with pytest.raises(ValueError, match="cannot be opened as a video") as got:
        open_reader(source)
    assert "geheim" not in str(got.value)


def test_a_live_stream_that_breaks_is_connected_to_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raw stream has no length, as a camera's has none; here it ends after five frames."""
    path = write_clip(tmp_path / "clip.h264", CONSTANT[:5], format="h264")
    opened: list[str] = []
    connect = av.open

    def flaky(address: str, **options: object) -> object:
        opened.append(address)
        if len(opened) in (2, 3) or len(opened) > 5:
            raise OSError("no route to host")
        return connect(str(path))

    pauses: list[float] = []
    monkeypatch.setattr(av, "open", flaky)
    monkeypatch.setattr(video.time, "sleep", pauses.append)
    (source,) = find_inputs(["rtsp://user:geheim@10.0.0.1/live"]).sources
    with open_reader(source) as reader:
        frames = list(reader)
    assert len(frames) == 15  # of three connections
    times = [frame.time for frame in frames]
    assert times == sorted(set(times))
    assert pauses[:3] == [1, 2, 4]
    assert set(opened) == {source.address}


def _source(path: Path) -> Source:
    (source,) = find_inputs([str(path)]).sources
    return source
