"""Videos are read at their times and copied with their length and their sound."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.clips import CONSTANT, VARIABLE, frame_times, seconds, sound_packets, write_clip

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
