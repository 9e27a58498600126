from __future__ import annotations

from pathlib import Path

import pytest

from face_d2.data.image_file import UnreadableImageError, read_image
from face_d2.modeling.weight_file import read_weight_file
from face_d2.predictor.onnx_backend import OnnxBackend
from face_d2.utils.known_mistake import known_mistake

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"


@pytest.mark.parametrize(
    ("content", "words"),
    [(POINTER, "git lfs pull"), (PAGE, "a web page, not the file"), (b"", "the file is empty")],
)
def test_what_a_file_is_is_said_wherever_it_is_read(
    tmp_path: Path, content: bytes, words: str
) -> None:
    for name, reader in (
        ("w.pth", read_weight_file),
        ("w.safetensors", read_weight_file),
        ("m.onnx", OnnxBackend),
        ("a.jpg", read_image),
    ):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises((ValueError, UnreadableImageError), match=words) as caught:
            reader(file)
        assert name in str(caught.value)


def test_other_files_are_no_known_mistake(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"\x80\x02}q\x00.")
    assert known_mistake(file) == ""
    assert known_mistake(tmp_path / "nowhere") == ""
