"""ONNX files: the same faces as PyTorch, without torch in the process."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.predictors import REFERENCE_PHOTOS
from helpers.same_detections import assert_same_detections
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import nn

from face_d2 import FaceDetector
from face_d2.ops.resize import resize
from face_d2.predictor.images import load_image
from face_d2.predictor.results import FaceResult

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

from face_d2.cli.export import main  # noqa: E402
from face_d2.export import onnx_file  # noqa: E402
from face_d2.export.graph import ExportGraph  # noqa: E402

RUNTIMES = [
    "onnxruntime",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("openvino") is None,
            reason="the extra [openvino] is not installed",
        ),
    ),
]


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colors, on which scores differ from place to place."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def assert_same_faces(expected: FaceResult, found: FaceResult) -> None:
    """Boxes within 0.05 px, scores within 1e-4."""
    assert_same_detections(
        (expected.boxes, expected.scores), (found.boxes, found.scores), 0.05, 1e-4
    )


@pytest.fixture(scope="session")
def unsuppressed(
    tiny_files: dict[str, tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[FaceDetector, Path]]:
    """The tiny detectors giving all their candidates, in PyTorch and as files.

    A random network has thousands of near-equal scores, which may come in another order elsewhere;
    then suppression would leave other boxes.
    """
    detectors = {}
    for name, node in (("lffd", "LFFD"), ("df2s2", "DF2S2"), ("padded", "DF2S2")):
        config, weights = tiny_files[node.lower()]
        overrides = ["MODEL.FFP.SIZE_DIVISIBILITY", "32"] if name == "padded" else []
        overrides += [f"MODEL.{node}.NMS_THRESH_TEST", "1.0", "TEST.DETECTIONS_PER_IMAGE", "100000"]
        overrides += [f"MODEL.{node}.TOPK_CANDIDATES_TEST", "100000"]
        overrides += [f"MODEL.{node}.SCORE_THRESH_TEST", "0.3"]
        path = tmp_path_factory.mktemp("unsuppressed") / f"{name}.onnx"
        words = ["--config-file", config, "--weights", weights, "--output", path]
        assert main([*map(str, words), *overrides]) == 0
        pytorch = FaceDetector.from_config(config, weights, device="cpu", overrides=overrides)
        detectors[name] = (pytorch, path)
    return detectors


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["lffd", "df2s2", "padded"])
@pytest.mark.parametrize("size", [(131, 197), (97, 65), (15, 40)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_random_networks_agree_with_pytorch(
    unsuppressed: dict[str, tuple[FaceDetector, Path]],
    name: str,
    runtime: str,
    size: tuple[int, int],
) -> None:
    pytorch, path = unsuppressed[name]
    exported = FaceDetector.from_onnx(path, runtime=runtime)
    image = picture(*size)
    expected, found = pytorch.detect(image), exported.detect(image)
    assert len(found) == len(expected) > 50
    # Every candidate has its own place in boxes and score together.
    rows = [
        np.column_stack([r.boxes / 0.05, r.scores / 1e-4, 10 * r.levels]) for r in (expected, found)
    ]
    distance, _ = cKDTree(rows[1]).query(rows[0], p=np.inf)
    assert distance.max() <= 1
    assert exported.levels == pytorch.levels


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_share_a_detector(tiny_onnx: dict[str, Path], runtime: str) -> None:
    detector = FaceDetector.from_onnx(tiny_onnx["lffd"], runtime=runtime, score_threshold=0.5)
    images = [picture(128 + 8 * i, 160 - 8 * i, seed=i) for i in range(8)] * 2
    alone = [detector.detect(image) for image in images]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(detector.detect, images))
    for expected, found in zip(alone, together):
        np.testing.assert_array_equal(expected.boxes, found.boxes)
        np.testing.assert_array_equal(expected.scores, found.scores)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pickled_detector_finds_the_same(tiny_onnx: dict[str, Path], runtime: str) -> None:
    detector = FaceDetector.from_onnx(tiny_onnx["lffd"], runtime=runtime, min_size=30)
    copy = pickle.loads(pickle.dumps(detector))
    first, second = (each.detect(picture(128, 160)) for each in (detector, copy))
    assert len(first) > 0
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert copy.runtime == detector.runtime


@pytest.fixture(scope="session")
def expected_photos(released: FaceDetector, test_data: Path) -> list[FaceResult]:
    return released.detect(sorted((test_data / "photos").iterdir()))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_reference_photographs(
    expected_photos: list[FaceResult],
    released_onnx: Path,
    test_data: Path,
    assert_reference: Callable[[str, Any, Any], None],
    runtime: str,
) -> None:
    exported = FaceDetector.from_onnx(released_onnx, runtime=runtime)
    photos = sorted((test_data / "photos").iterdir())
    assert len(photos) == 10
    for photo, expected in zip(photos, expected_photos):
        found = exported.detect(photo)
        assert_same_faces(expected, found)
        if photo.name in REFERENCE_PHOTOS:
            assert_reference(photo.name, found.boxes, found.scores)


@pytest.mark.parametrize("name", ["released LFFD", "df2s2"])
def test_every_candidate_of_all_photographs(
    released: FaceDetector,
    released_onnx: Path,
    tiny_files: dict[str, tuple[Path, Path]],
    tiny_onnx: dict[str, Path],
    test_data: Path,
    name: str,
) -> None:
    """Place by place, before suppression: a photograph alone, and with two mirrored as a batch."""
    if name == "df2s2":
        detector = FaceDetector.from_config(*tiny_files[name], device="cpu")
        path = tiny_onnx[name]
    else:
        detector, path = released, released_onnx
    backend: Any = detector.backend
    graph = ExportGraph(backend.model, backend.spec.size_rule.min_side)
    session = onnxruntime.InferenceSession(path)
    rule = backend.spec.size_rule
    for photo in sorted((test_data / "photos").iterdir()):
        image = load_image(photo)
        image = resize(image, *rule.resized(*image.shape[:2]))
        batch = np.stack([image, image[:, ::-1], image[::-1]])
        with torch.no_grad():
            expected = [output.numpy() for output in graph(torch.from_numpy(batch))]
        edges = [*image.shape[1::-1]] * 2  # nobody sees what lies outside
        for count in (1, 3):
            boxes, scores, levels = session.run(None, {"image": batch[:count]})
            wanted = expected[0][:count].clip(0, edges)
            np.testing.assert_allclose(boxes.clip(0, edges), wanted, rtol=0, atol=0.05)
            np.testing.assert_allclose(scores, expected[1][:count], rtol=0, atol=1e-4)
            np.testing.assert_array_equal(levels, expected[2])


@pytest.mark.parametrize("name", ["lffd", "df2s2"])
def test_a_batch_of_three_in_one_run(tiny_onnx: dict[str, Path], name: str) -> None:
    session = onnxruntime.InferenceSession(tiny_onnx[name])
    images = np.stack([picture(117, 83, seed) for seed in range(3)])
    together = session.run(None, {"image": images})
    for index, image in enumerate(images):
        alone = session.run(None, {"image": image[None]})
        np.testing.assert_allclose(together[0][index], alone[0][0], atol=0.05, rtol=1e-5)
        np.testing.assert_allclose(together[1][index], alone[1][0], atol=1e-4)
        np.testing.assert_array_equal(together[2], alone[2])


@pytest.mark.parametrize("name", ["lffd", "df2s2"])
def test_suppression_in_the_graph(
    tiny_files: dict[str, tuple[Path, Path]],
    tiny_onnx: dict[str, Path],
    name: str,
    tmp_path: Path,
) -> None:
    config, weights = tiny_files[name]
    node, threshold = {"lffd": "LFFD", "df2s2": "DF2S2"}[name], 0.65
    words = ["--config-file", str(config), "--weights", str(weights), "--outputs", "detections"]
    words += ["--output", str(tmp_path / "detections.onnx")]
    assert main([*words, f"MODEL.{node}.SCORE_THRESH_TEST", str(threshold)]) == 0
    # The tiny DF2S2 searches images at short side 96, so that these stay as they are.
    images = np.stack([picture(96, 133, seed) for seed in range(3)])
    session = onnxruntime.InferenceSession(tmp_path / "detections.onnx")
    assert [output.name for output in session.get_outputs()] == ["detections"]
    (rows,) = session.run(None, {"image": images})
    detector = FaceDetector.from_onnx(
        tiny_onnx[name], runtime="onnxruntime", score_threshold=threshold
    )
    assert len(rows) > 10
    for index, expected in enumerate(detector.detect(list(images))):
        own = rows[rows[:, 0] == index]
        assert (np.diff(own[:, 5]) <= 0).all()
        boxes = own[:, 1:5].clip(0, [133, 96, 133, 96])
        kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        levels = own[kept, 6].astype(int)
        found = FaceResult(boxes[kept], own[kept, 5], levels, expected.height, expected.width)
        assert_same_faces(expected, found)
    with pytest.raises(ValueError, match=r"its outputs are 'detections'; .*--outputs candidates"):
        FaceDetector.from_onnx(tmp_path / "detections.onnx", runtime="onnxruntime")


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("lffd", ["score_c4", "box_c4", "score_c7", "box_c7"]),
        ("df2s2", [f"{k}_ffp{n}" for n in range(2, 8) for k in ("logits", "deltas")]),
    ],
)
def test_raw_maps(
    tiny_files: dict[str, tuple[Path, Path]],
    name: str,
    names: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, weights = tiny_files[name]
    path, opset = tmp_path / "maps.onnx", {"lffd": 16, "df2s2": 20}[name]
    words = ["--config-file", str(config), "--weights", str(weights), "--output", str(path)]
    status = main([*words, "--outputs", "maps", "--opset", str(opset)])
    if opset > 17 and status == 1:
        assert "cannot write opset 20; take a smaller one" in capsys.readouterr().err
        pytest.skip("this PyTorch's exporter is older than opset 20")
    assert status == 0
    file = onnx.load(path)
    assert [output.name for output in file.graph.output] == names
    assert file.opset_import[0].version == opset
    detector: Any = FaceDetector.from_config(config, weights, device="cpu")
    image = picture(130, 141)
    found = onnxruntime.InferenceSession(path).run(None, {"image": image[None]})
    model = detector.backend.model
    with torch.no_grad():
        tensor = torch.from_numpy(image).permute(2, 0, 1)
        expected = model.forward_maps(model.preprocess_image([{"image": tensor}]).tensor)
    for ours, theirs in zip(expected, found):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4, rtol=1e-4)


def test_what_is_enlarged_is_padded_afterwards(tiny_files: dict[str, tuple[Path, Path]]) -> None:
    backend: Any = FaceDetector.from_config(*tiny_files["lffd"], device="cpu").backend
    backend.model.size_divisibility = 32
    image = picture(60, 100)
    maps = ExportGraph(backend.model, 128, maps=True)(torch.from_numpy(image[None]))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    enlarged = nn.functional.interpolate(pixels, (128, 213), mode="bilinear")
    expected = backend.model.forward_maps(
        backend.model.preprocess_image([{"image": enlarged[0]}]).tensor
    )
    for ours, theirs in zip(maps, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_metadata(tiny_onnx: dict[str, Path]) -> None:
    file = onnx.load(tiny_onnx["lffd"])
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    assert metadata["classes"] == "face"
    assert metadata["face_ranges"] == "c4: 10-20 px, c7: 20-40 px"
    assert metadata["opset"] == "17"
    assert metadata["nms"] == "iou 0.4"
    assert metadata["score_threshold"] == "0.11"
    assert metadata["input"] == "uint8 (N, H, W, 3), BGR"
    assert metadata["git_revision"] == "unknown" or len(metadata["git_revision"]) >= 40
    assert len(metadata["weights_sha256"]) == 64
    shape = file.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["images", "height", "width", 3]


def test_no_torch_in_the_process(tiny_onnx: dict[str, Path], tmp_path: Path) -> None:
    """With onnxruntime, NumPy, OpenCV and Pillow: anything else cannot even be found."""
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), picture(60, 80))
    code = f"""
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {{"torch", "torchvision", "detectron2", "onnx", "scipy",
                                   "matplotlib", "fvcore", "pycocotools", "openvino"}}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from face_d2 import FaceDetector
detector = FaceDetector.from_onnx({str(tiny_onnx['lffd'])!r}, runtime="onnxruntime", threads=1)
result = detector.detect({str(image)!r})
print(len(result))
from face_d2.cli.predict import main
raise SystemExit(main([{str(image)!r}, "--onnx", {str(tiny_onnx['lffd'])!r},
                       "--runtime", "onnxruntime", "--output", {str(tmp_path / 'out')!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[0]) > 0
    (record,) = json.loads((tmp_path / "out/detections.json").read_text())
    assert len(record["faces"]) == int(done.stdout.splitlines()[0])


def test_images_too_small_for_a_face(tiny_onnx: dict[str, Path]) -> None:
    detector = FaceDetector.from_onnx(tiny_onnx["lffd"], score_threshold=0.0)
    results = detector.detect([picture(7, 60), picture(8, 8)])
    assert [len(r) > 0 for r in results] == [False, True]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_sizes_in_any_order(
    unsuppressed: dict[str, tuple[FaceDetector, Path]], runtime: str
) -> None:
    """One session sees images that must be enlarged and others, smaller and larger by turns."""
    pytorch, path = unsuppressed["lffd"]
    exported = FaceDetector.from_onnx(path, runtime=runtime)
    sizes = [(131, 140), (40, 60), (150, 197), (131, 140), (128, 128), (127, 300), (180, 210)]
    for seed, size in enumerate(sizes):
        image = picture(*size, seed)
        expected, found = pytorch.detect(image), exported.detect(image)
        assert len(found) == len(expected) > 50
        np.testing.assert_allclose(
            np.sort(found.boxes, axis=0), np.sort(expected.boxes, axis=0), atol=0.05
        )


def test_equal_weights_are_stored_for_each_layer(tiny_onnx: dict[str, Path]) -> None:
    """Behind an Identity, ONNX Runtime would not see that they can be int8."""
    graph = onnx.load(tiny_onnx["lffd"]).graph
    weights = {weight.name for weight in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    biases = [node.input[2] for node in convolutions]
    assert len(set(biases)) == len(biases) == 17
    assert set(biases) <= weights


def test_auto_takes_the_first_runtime_there_is(
    tiny_onnx: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec

    def without(*names: str) -> None:
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda n: None if n in names else find_spec(n)
        )

    without("openvino")
    assert FaceDetector.from_onnx(tiny_onnx["lffd"]).runtime.startswith("ONNX Runtime")
    with pytest.raises(ImportError, match=r"openvino is not installed.*\[openvino\]"):
        FaceDetector.from_onnx(tiny_onnx["lffd"], runtime="openvino")
    without("openvino", "onnxruntime")
    with pytest.raises(ImportError, match=r"openvino or onnxruntime is not installed.*\[onnx\]"):
        FaceDetector.from_onnx(tiny_onnx["lffd"])


def test_files_that_are_no_detectors(tiny_onnx: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        FaceDetector.from_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ValueError, match="cannot be loaded as an ONNX model"):
        FaceDetector.from_onnx(tmp_path / "text.onnx", runtime="onnxruntime")
    file = onnx.load(tiny_onnx["lffd"])
    del file.metadata_props[:]
    onnx.save(file, tmp_path / "bare.onnx")
    with pytest.raises(ValueError, match="not a file of face-d2-export"):
        FaceDetector.from_onnx(tmp_path / "bare.onnx", runtime="onnxruntime")
    with pytest.raises(ValueError, match="runtime is"):
        FaceDetector.from_onnx(tiny_onnx["lffd"], runtime="tensorrt")
    with pytest.raises(ValueError, match="threads is 0; expected at least 1"):
        FaceDetector.from_onnx(tiny_onnx["lffd"], threads=0)
    with pytest.raises(TypeError, match=r"threads is 1\.5; expected a whole number"):
        FaceDetector.from_onnx(tiny_onnx["lffd"], threads=1.5)


def test_a_file_that_differs_is_not_left(
    tiny_files: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trace = onnx_file._trace

    def spoilt(graph: Any, path: Path, opset: int) -> None:
        trace(graph, path, opset)
        file = onnx.load(path)
        weights = next(w for w in file.graph.initializer if w.name.endswith("conv1.weight"))
        values = onnx.numpy_helper.to_array(weights) * 1.1
        weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weights.name))
        onnx.save(file, path)

    monkeypatch.setattr(onnx_file, "_trace", spoilt)
    config, weights = tiny_files["lffd"]
    path = tmp_path / "spoilt.onnx"
    words = ["--config-file", str(config), "--weights", str(weights), "--output", str(path)]
    assert main(words) == 1
    assert "differ from PyTorch's by" in capsys.readouterr().err
    assert not path.exists()


def test_outputs_of_other_shapes_are_named() -> None:
    boxes = np.zeros((1, 5, 4), np.float32)
    with pytest.raises(
        RuntimeError, match=r"gives boxes of shape \(1, 6, 4\) for images \(1, 9, 9"
    ):
        onnx_file.check_close(["boxes"], [boxes], [np.zeros((1, 6, 4))], (1, 9, 9))


def test_what_the_exporter_refuses_is_named(
    tiny_files: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no such layer")

    image, path = torch.zeros(1, 3, 8, 8), tmp_path / "x.onnx"
    with pytest.raises(ValueError, match=r"cannot write opset 99; take a smaller one"):
        onnx_file.traced(nn.Identity(), image, path, 99, ["x"], {})
    with pytest.raises(ValueError, match=r"^no such layer$"):
        onnx_file.traced(Broken(), image, path, 17, ["x"], {})
    backend: Any = FaceDetector.from_config(*tiny_files["lffd"], device="cpu").backend
    with pytest.raises(ValueError, match=r"outputs is 'boxes'; expected one of \['candidates'"):
        onnx_file.export_onnx(
            backend.model,
            path,
            size_rule=backend.spec.size_rule,
            config="",
            weights="",
            outputs="boxes",
        )
    assert not path.exists()


def test_without_git_the_revision_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert onnx_file._git_revision() == "unknown"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--opset", "9"], "opset is 9; expected 16 to 20"),
        (
            ["--outputs", "detections", "MODEL.LFFD.NMS_TYPE", "iom"],
            "ONNX has no 'iom' suppression",
        ),
    ],
)
def test_bad_exports_are_named(
    tiny_files: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, weights = tiny_files["lffd"]
    model = ["--config-file", str(config), "--weights", str(weights)]
    assert main([*model, "--output", str(tmp_path / "x.onnx"), *words]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.glob("*.onnx")) == []
    with pytest.raises(SystemExit):
        main([*model, "--output", str(tmp_path / "x.pth")])
    assert "must end in .onnx" in capsys.readouterr().err
