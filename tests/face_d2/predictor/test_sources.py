"""What a folder holds is searched or named; nothing is left out in silence."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers.image_files import READABLE, animated, encoded, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import features

from face_d2.predictor.sources import Inputs, find_inputs

MP4 = b"\0\0\0\x18ftypisom\0\0\0\0isommp41" + bytes(500)
TRANSPORT = (b"\x47" + bytes(187)) * 8
CAMERA_TRANSPORT = (bytes(4) + b"\x47" + bytes(187)) * 8
HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(500)
JPEG = encoded(picture(), "JPEG")

#: Name -> content, of files that hold a picture or video, whatever their names say.
SEARCHED: dict[str, bytes] = {
    "a.jpg": JPEG,
    "b.jfif": JPEG,
    "b2.JFI": JPEG,
    "c.HEIC": HEIC,
    "d.MTS": CAMERA_TRANSPORT,
    "e.3gp": MP4,
    "f.flv": b"FLV\x01" + bytes(200),
    "g.asf": b"0&\xb2u\x8ef\xcf\x11" + bytes(200),
    "h.mpo": JPEG,
    "no_ending": JPEG,
    "video_without_ending": MP4,
    ".hidden.png": encoded(picture(), "PNG"),
    "i.dat": b"\0\0\x01\xba" + bytes(200),
    "j.ts": TRANSPORT,
    "k.mkv": b"\x1aE\xdf\xa3" + bytes(200),
    "l.avi": b"RIFF\0\0\0\0AVI LIST" + bytes(200),
    "m.bmp": encoded(picture(), "BMP"),
    "n.webp": encoded(picture(), "WEBP"),
    "o.gif": animated("GIF"),
    "p.ppm": encoded(picture(), "PPM"),
    "q.tiff": encoded(picture(), "TIFF"),
    "r.jp2": encoded(picture(), "JPEG2000") if features.check("jpg_2000") else JPEG,
    "s.ogv": b"OggS" + bytes(24) + b"\x80theora" + bytes(200),
    "t.mov": b"\0\0\0\x08wide\0\0\0\x08mdat" + bytes(200),
    "u.jxl": b"\xff\x0a" + bytes(200),
    "v.psd": b"8BPS" + bytes(200),
    "w.nef": b"damaged",
    "x.png": b"",
    "y.mp4": b"damaged",
    "picture.txt": JPEG,
    "ñandú%20 #1 [x].jpg": JPEG,
}
#: Files that hold neither.
OTHERS: dict[str, bytes] = {
    "notes.txt": b"Notes on BMX bikes.",
    "BM.txt": b"BM is no bitmap",
    "P5.txt": b"P5 is a position",
    "app.ts": b"export const answer = 42;",
    "empty": b"",
    "sound.mp3": b"ID3\x03" + bytes(100),
    "sound.ogg": b"OggS" + bytes(24) + b"\x01vorbis",
    "song.m4a": b"\0\0\0\x18ftypM4A \0\0\0\0",
    "letter.pdf": b"%PDF-1.7",
    "._a.jpg": b"\0\x05\x16\x07" + bytes(50),
    ".DS_Store": b"\0\0\0\x01Bud1",
}


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def names(inputs: Inputs) -> list[str]:
    return [source.name for source in inputs.sources]


def left(inputs: Inputs) -> dict[str, str]:
    return {Path(one.name).name: one.reason for one in inputs.left_out}


def test_forty_odd_files_are_searched_or_named(tmp_path: Path) -> None:
    write(tmp_path, SEARCHED | OTHERS)
    inputs = find_inputs([str(tmp_path)])
    assert set(names(inputs)) == set(SEARCHED)
    assert left(inputs).keys() == OTHERS.keys()
    assert not any(one.failed for one in inputs.left_out)
    kinds = {source.name: source.kind for source in inputs.sources}
    videos = {"d.MTS", "e.3gp", "f.flv", "g.asf", "video_without_ending", "i.dat", "j.ts"}
    videos |= {"k.mkv", "l.avi", "s.ogv", "t.mov", "y.mp4"}
    assert {name for name, kind in kinds.items() if kind == "video"} == videos
    text = "\n".join(inputs.summary())
    assert "not searched: 5 x neither a picture nor a video" in text
    assert "letter.pdf" in text


@pytest.mark.parametrize("name", READABLE)
def test_what_the_reader_reads_is_an_input_under_any_name(name: str, tmp_path: Path) -> None:
    content = READABLE[name][0]()
    write(tmp_path, {"file.bin": content})
    (source,) = find_inputs([str(tmp_path)]).sources
    assert (source.kind, source.pages) == ("image", 3 if "animated" in name else 1)
    assert source.format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
    (first,) = find_inputs([str(tmp_path)], first_page=True).sources
    assert first.pages == 1


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path / "real/albumA", {"1.jpg": JPEG})
    write(tmp_path / "nas/albumB", {"2.jpg": JPEG})
    (tmp_path / "real/albumB").symlink_to(tmp_path / "nas/albumB")
    (tmp_path / "real/again").symlink_to(tmp_path / "real/albumA")
    (tmp_path / "nas/albumB/loop").symlink_to(tmp_path / "real")
    (tmp_path / "real/3.jpg").symlink_to(tmp_path / "nas/albumB/2.jpg")
    (tmp_path / "real/gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    inputs = find_inputs([str(tmp_path / "real")])
    assert names(inputs) == ["3.jpg", "albumA/1.jpg", "albumB/2.jpg"]
    assert left(inputs) == {
        "again": "folder that is searched under another path",
        "loop": "folder that is searched under another path",
        "gone.jpg": "broken link",
    }
    assert [one.failed for one in inputs.left_out].count(True) == 1
    assert names(find_inputs([str(tmp_path / "real/**")])) == names(inputs)
    (tmp_path / "nas/albumB/loop").unlink()
    assert names(find_inputs([str(tmp_path / "real/*")])) == names(inputs)


def test_what_cannot_be_opened_is_a_failure(tmp_path: Path) -> None:
    write(tmp_path / "in", {"a.jpg": JPEG, "b.jpg": JPEG})
    write(tmp_path / "in/locked", {"c.jpg": JPEG})
    os.mkfifo(tmp_path / "in/pipe.jpg")
    (tmp_path / "in/b.jpg").chmod(0)
    (tmp_path / "in/locked").chmod(0)
    try:
        inputs = find_inputs([str(tmp_path / "in")])
    finally:
        (tmp_path / "in/locked").chmod(0o700)
    assert left(inputs)["pipe.jpg"] == "a device, pipe or socket"
    if os.geteuid() == 0:  # may open everything
        return
    assert names(inputs) == ["a.jpg"]
    assert {Path(one.name).name for one in inputs.left_out if one.failed} == {"b.jpg", "locked"}


def test_a_folder_that_cannot_be_read_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for root, who may read every folder but those of some servers."""
    write(tmp_path / "in", {"a.jpg": JPEG})
    write(tmp_path / "in/locked", {"c.jpg": JPEG})
    entries = Path.iterdir

    def refused(path: Path) -> Any:
        if path.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return entries(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    inputs = find_inputs([str(tmp_path / "in")])
    assert names(inputs) == ["a.jpg"]
    assert left(inputs) == {"locked": "folder that cannot be read: Permission denied"}
    assert [one.failed for one in inputs.left_out] == [True]


def test_the_output_folder_is_no_input(tmp_path: Path) -> None:
    write(tmp_path / "in", {"a.jpg": JPEG, ".tmp-17-a.jpg": JPEG})
    write(tmp_path / "in/out/blurred", {"a.jpg": JPEG})
    for word in (str(tmp_path / "in"), str(tmp_path / "in/**/*")):
        inputs = find_inputs([word], tmp_path / "in/out")
        assert names(inputs) == ["a.jpg"]
    assert (
        "temporary file of a killed run"
        in left(find_inputs([str(tmp_path / "in")], tmp_path / "in/out")).values()
    )


def test_a_glob_that_matches_no_picture_says_what_it_matched(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": b"text", "b.txt": b"text"})
    with pytest.raises(FileNotFoundError, match=r"no images or videos\n.*2 x neither") as got:
        find_inputs([str(tmp_path / "*.txt")])
    assert "a.txt" in str(got.value)
    write(tmp_path, {"c.jfif": JPEG})
    assert names(find_inputs([str(tmp_path / "*.jfif")])) == ["c.jfif"]


def test_a_named_file_is_always_an_input(tmp_path: Path) -> None:
    write(tmp_path, OTHERS)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    words = [str(tmp_path / name) for name in (*OTHERS, "gone.jpg")]
    assert len(find_inputs(words).sources) == len(words)


_NAMES = st.sampled_from([*SEARCHED, *OTHERS, "x", "y.jpg", "z.JPEG"])
_CONTENTS = st.sampled_from([*SEARCHED.values(), *OTHERS.values()])
_TREES = st.recursive(
    st.dictionaries(_NAMES, _CONTENTS, max_size=4),
    lambda trees: st.dictionaries(
        st.sampled_from(["p", "q", "r", "s"]) | _NAMES, trees | _CONTENTS, max_size=4
    ),
    max_leaves=8,
)
_LINKS = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.booleans()), max_size=5)


def plant(folder: Path, tree: dict[str, Any]) -> list[Path]:
    """Writes a tree; returns its folders."""
    folder.mkdir()
    folders = [folder]
    for name, content in tree.items():
        if isinstance(content, dict):
            folders += plant(folder / name, content)
        else:
            (folder / name).write_bytes(content)
    return folders


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(tree=_TREES, other=_TREES, links=_LINKS)
def test_every_file_of_any_tree_is_an_input_or_named(
    tree: dict[str, Any], other: dict[str, Any], links: list[tuple[int, int, bool]]
) -> None:
    """Files, folders and links of any names, linked within and beyond the tree, in loops too."""
    with tempfile.TemporaryDirectory() as place:
        inside = plant(Path(place, "in"), tree)
        outside = plant(Path(place, "elsewhere"), other)
        for number, (where, to, beyond) in enumerate(links):
            targets = outside if beyond else inside
            link = inside[where % len(inside)] / f"link{number}"
            link.symlink_to(targets[to % len(targets)])
        try:
            inputs = find_inputs([str(Path(place, "in"))])
        except FileNotFoundError:
            inputs = Inputs()
        # What the walk of an operating system's own tool reaches, by what the files really are.
        reached = set()
        for folder, below, files in os.walk(Path(place, "in"), followlinks=True):
            below[:] = [b for b in below if os.path.realpath(f"{folder}/{b}") not in reached]
            reached |= {os.path.realpath(f"{folder}/{b}") for b in below}
            reached |= {os.path.realpath(f"{folder}/{name}") for name in files}
        expected = {path for path in reached if os.path.isfile(path)}
        searched = [os.path.realpath(source.file) for source in inputs.sources]
        named = {os.path.realpath(one.name) for one in inputs.left_out}
        pictures = {p for p in expected if Path(p).read_bytes() in SEARCHED.values()}
        assert len(searched) == len(set(searched))
        if inputs.sources:
            assert expected <= set(searched) | named
        assert {p for p in pictures if Path(p).read_bytes() not in (b"", b"damaged")} <= set(
            searched
        )
