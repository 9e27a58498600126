"""Detectors that ship with the package."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_d2 import FaceDetector, model_zoo
from face_d2.cli.predict import main as predict
from face_d2.pretrained import DEFAULT, PRETRAINED, find_pretrained

EXAMPLES = Path(__file__).parents[2] / "examples" / "photos"
#: People in the photographs of the repository; every face is well above 20 pixels.
FACES = {"astronaut.jpg": 1, "grace_hopper.jpg": 1, "nasa_group.jpg": 23}


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_detector_has_its_three_files(name: str) -> None:
    model = find_pretrained(name)
    assert model.onnx.stat().st_size + model.weights.stat().st_size < 15e6
    assert model.card.read_text(encoding="utf-8").startswith(f"# {name}")
    assert model_zoo.get_checkpoint_file(name) == str(model.weights)
    published = EXAMPLES.parents[1] / "docs" / "models" / f"{name}.md"
    assert model.card.read_bytes() == published.read_bytes()


def test_an_unknown_name_is_told_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"'df2s2-lite'.*did you mean 'df2s2-lite0'"):
        FaceDetector.from_pretrained("df2s2-lite")


def test_a_file_that_an_installation_lacks_is_named() -> None:
    model = dataclasses.replace(PRETRAINED[DEFAULT], name="gone")
    with pytest.raises(FileNotFoundError, match=r"gone\.onnx: .*missing .*; install the package"):
        model.onnx  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "tflite"}, '"onnx" or "torch"'),
        ({"device": "cpu"}, 'device is a setting of backend "torch"'),
        ({"backend": "torch", "threads": 1}, 'threads is a setting of backend "onnx"'),
    ],
)
def test_settings_of_the_other_backend_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceDetector.from_pretrained(**settings)


@pytest.mark.parametrize("photo", FACES)
def test_the_default_finds_every_face_of_the_example_photographs(photo: str) -> None:
    found = FaceDetector().detect(EXAMPLES / photo)
    assert FACES[photo] <= (found.scores > 0.5).sum() <= FACES[photo] + 2


@pytest.mark.parametrize("name", PRETRAINED)
def test_torch_and_onnx_find_the_same(name: str) -> None:
    assert_torch_equals_onnx(name, [EXAMPLES / photo for photo in FACES])


@pytest.mark.parametrize("name", PRETRAINED)
def test_torch_and_onnx_find_the_same_on_photographs_of_other_projects(
    name: str, test_data: Path
) -> None:
    photos = sorted((test_data / "photos").iterdir())
    assert len(photos) >= 10
    assert_torch_equals_onnx(name, photos)


@pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra [openvino] is not installed"
)
@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize("size", [(1, 1), (31, 64), (64, 64), (65, 130)])
def test_openvino_finds_the_same_in_small_images(name: str, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    path = PRETRAINED[name].onnx
    expected = FaceDetector.from_onnx(path, runtime="onnxruntime").detect(image)
    found = FaceDetector.from_onnx(path, runtime="openvino").detect(image)
    strong = expected.above(0.1)
    assert len(found.above(0.1)) == len(strong)
    assert np.abs(found.boxes[: len(strong)] - strong.boxes).max(initial=0) < 0.05


@pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra [openvino] is not installed"
)
@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize("threads", [1, None])
def test_small_images_and_others_are_searched_in_any_order(name: str, threads: int | None) -> None:
    path = PRETRAINED[name].onnx
    onnxruntime = FaceDetector.from_onnx(path, runtime="onnxruntime")
    openvino = FaceDetector.from_onnx(path, runtime="openvino", threads=threads)
    portrait = Image.open(EXAMPLES / "astronaut.jpg").convert("RGB").crop((150, 0, 350, 200))
    for size in ((200, 150), (60, 60), (31, 31), (100, 200), (65, 200), (200, 100)):
        image = np.array(portrait.resize(size))[..., ::-1]
        strong = onnxruntime.detect(image).above(0.1)
        found = openvino.detect(image)
        assert len(found.above(0.1)) == len(strong)
        assert np.abs(found.boxes[: len(strong)] - strong.boxes).max(initial=0) < 0.05


def assert_torch_equals_onnx(name: str, photos: list[Path]) -> None:
    """A detection may be found by one alone if its score is within 0.001 of the threshold."""
    threshold, near = 0.1, 1e-3
    settings = {"score_threshold": threshold - near}
    by_onnx = FaceDetector.from_pretrained(name, **settings)
    by_torch = FaceDetector.from_pretrained(name, backend="torch", device="cpu", **settings)
    for photo in photos:
        sides = []
        for detector in (by_onnx, by_torch):
            found = detector.detect(photo)
            sides.append(list(zip(found.scores, found.boxes)))
        for one, other in (sides, sides[::-1]):
            for score, box in one:
                if score < threshold + near:
                    continue
                same = [
                    s for s, b in other if np.abs(b - box).max() < 0.1 and abs(s - score) < near
                ]
                assert same, f"{photo.name}: {box} with {score} was found by one of the two"


def test_the_default_detector_needs_no_torch_and_no_detectron2() -> None:
    code = (
        "import sys; from face_d2 import FaceDetector; "
        f"print(len(FaceDetector().detect({str(EXAMPLES / 'astronaut.jpg')!r}).boxes)); "
        "assert not {'torch', 'detectron2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1


def test_the_command_takes_the_default_and_says_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(EXAMPLES / "astronaut.jpg")
    assert predict([photo, "--draw", "--output", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert f"model: {DEFAULT}" in told.err
    assert f"1 faces with a score above 0.5; {tmp_path / 'drawn'}" in told.err
    records = json.loads((tmp_path / "detections.json").read_text())
    assert sum(f["score"] > 0.5 for r in records for f in r["faces"]) == 1
    (drawn,) = (tmp_path / "drawn").iterdir()
    with Image.open(drawn) as picture, Image.open(photo) as original:
        assert picture.size == original.size
