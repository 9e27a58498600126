"""Files for OpenCV's dnn find the same faces as ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.same_detections import assert_same_detections
from numpy.typing import NDArray

from face_d2 import FaceDetector
from face_d2.pretrained import PRETRAINED

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")

from face_d2.cli.export import main  # noqa: E402
from face_d2.export import opencv_file  # noqa: E402

SIZE = (250, 330)  # no multiple of a stride


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped detectors, exported for OpenCV."""
    folder = tmp_path_factory.mktemp("opencv")
    exported = {}
    for name, model in PRETRAINED.items():
        exported[name] = folder / f"{name}.onnx"
        words = ["--config-file", model.config, "--weights", str(model.weights)]
        sides = [str(side) for side in SIZE]
        assert main([*words, "--output", str(exported[name]), "--opencv", *sides]) == 0
    return exported


@pytest.fixture(scope="module")
def photo(repo: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(repo / "examples/photos/nasa_group.jpg"))
    return cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("name", PRETRAINED)
def test_opencv_finds_the_faces_that_onnx_runtime_finds(
    name: str, files: dict[str, Path], photo: NDArray[np.uint8]
) -> None:
    expected = FaceDetector.from_pretrained(name, score_threshold=0.3).detect(photo)
    assert len(expected) >= 5
    net = cv2.dnn.readNetFromONNX(str(files[name]))
    rgb = "RGB" in metadata(files[name])["input"]
    net.setInput(cv2.dnn.blobFromImage(photo, swapRB=rgb))
    boxes, scores = (output[0] for output in net.forward(["boxes", "scores"]))
    sides = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    overlap = {"lffd-20l5s": 0.4, "df2s2-lite0": 0.5}[name]
    kept = np.array(cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), 0.3, overlap)).ravel()
    found = boxes[kept].clip(0, [SIZE[1], SIZE[0]] * 2)
    assert_same_detections((expected.boxes, expected.scores), (found, scores[kept]), 0.05, 1e-4)


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_file_says_what_it_takes(name: str, files: dict[str, Path]) -> None:
    graph = onnx.load(files[name]).graph
    (source,) = graph.input
    sides = [side.dim_value for side in source.type.tensor_type.shape.dim]
    assert sides == [1, 3, *SIZE]
    assert source.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [output.name for output in graph.output] == ["boxes", "scores"]
    assert metadata(files[name])["input"].startswith(f"float32 (1, 3, {SIZE[0]}, {SIZE[1]}), ")
    with pytest.raises(ValueError, match=r"its outputs are 'opencv'; FaceDetector needs"):
        FaceDetector.from_onnx(files[name], runtime="onnxruntime")


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_sides_are_padded_as_the_config_says(
    tiny_files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    config, weights = tiny_files["df2s2"]
    path, padded = tmp_path / "a.onnx", ["MODEL.FFP.SIZE_DIVISIBILITY", "32"]
    words = ["--config-file", config, "--weights", weights, "--output", path]
    assert main([*map(str, words), "--opencv", "100", "133", *padded]) == 0
    image = np.random.default_rng(0).integers(0, 256, (100, 133, 3), dtype=np.uint8)
    net = cv2.dnn.readNetFromONNX(str(path))
    net.setInput(cv2.dnn.blobFromImage(image))
    boxes, scores = net.forward(["boxes", "scores"])
    backend: Any = FaceDetector.from_config(config, weights, device="cpu", overrides=padded).backend
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    with torch.no_grad():
        maps = backend.model.forward_maps(
            backend.model.preprocess_image([{"image": tensor}]).tensor
        )
        expected = [output.numpy() for output in backend.model.decode(maps)]
    inside = [133, 100] * 2
    np.testing.assert_allclose(boxes.clip(0, inside), expected[0].clip(0, inside), atol=0.05)
    np.testing.assert_allclose(scores, expected[1], atol=1e-4)


def test_what_this_opencv_cannot_run_is_named(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Nothing", ["image"], ["boxes"], domain="nobody")
    info = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 8, 8])
        for name in ("image", "boxes")
    ]
    graph = onnx.helper.make_graph([node], "graph", info[:1], info[1:])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
    with pytest.raises(
        RuntimeError, match=rf"OpenCV {cv2.__version__} cannot run .*Nothing.*; update"
    ):
        opencv_file._by_opencv(tmp_path / "a.onnx", np.zeros((1, 3, 8, 8), np.float32))


def test_sizes_that_the_network_would_enlarge_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = PRETRAINED["lffd-20l5s"], tmp_path / "a.onnx"
    words = ["--config-file", model.config, "--weights", str(model.weights), "--output", str(path)]
    assert main([*words, "--opencv", "100", "640"]) == 1
    assert "size 100 x 640: both sides must be at least 128" in capsys.readouterr().err
    assert not path.exists()
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--opencv", "480", "640", "--outputs", "maps"])
    assert stopped.value.code == 2
