"""Detectors to predict with: a stub that finds drawn squares, tiny networks, the released one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from helpers.predictors import REFERENCE_SETTINGS, SquareFinder
from helpers.tiny_configs import tiny_lffd
from torchvision.ops import box_iou

from face_d2 import FaceDetector
from face_d2.config import get_cfg, get_config_file


@pytest.fixture
def squares() -> tuple[FaceDetector, SquareFinder]:
    """A detector that finds green squares, and its backend."""
    backend = SquareFinder()
    return FaceDetector(backend), backend


def tiny_df2s2() -> CfgNode:
    """A narrow one that searches images at short side 96."""
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("quick/df2s2_synth.yaml"))
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64  # what Detectron2 asks of this depth
    cfg.MODEL.DF2S2.NORM = "GN"
    cfg.MODEL.FFP.OUT_CHANNELS = 32
    cfg.MODEL.DF2S2.CONV_DIM = 64
    cfg.INPUT.MIN_SIZE_TEST = 96
    return cfg


TINY = {"lffd": tiny_lffd, "df2s2": tiny_df2s2}


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Config and random weights of a tiny LFFD and a tiny DF2S2, whose scores spread over 0-1."""
    files = {}
    for name, config in TINY.items():
        folder = tmp_path_factory.mktemp(name)
        cfg = config()
        cfg.MODEL.DEVICE = "cpu"
        torch.manual_seed(1)
        model = build_model(cfg)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.endswith(("cls_score.weight", "score.weight")):
                    parameter.mul_(4)
                if key.endswith("cls_score.bias"):
                    parameter.fill_(-1)
                if key.endswith("box.bias"):  # boxes of LFFD that are not inside out
                    parameter.copy_(torch.tensor([1.0, 1.0, -1.0, -1.0]))
        (folder / "config.yaml").write_text(cfg.dump())
        torch.save({"model": model.state_dict()}, folder / "weights.pth")
        files[name] = (folder / "config.yaml", folder / "weights.pth")
    return files


@pytest.fixture(scope="session")
def tiny_onnx(
    tiny_files: dict[str, tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The tiny detectors, exported by the command."""
    from face_d2.cli.export import main  # the modules that use it ask for onnx first

    files = {}
    for name, (config, weights) in tiny_files.items():
        files[name] = tmp_path_factory.mktemp("onnx") / f"{name}.onnx"
        words = ["--config-file", config, "--weights", weights, "--output", files[name]]
        assert main([str(word) for word in words]) == 0
    return files


@pytest.fixture(params=sorted(TINY))
def tiny(request: pytest.FixtureRequest, tiny_files: dict[str, tuple[Path, Path]]) -> FaceDetector:
    """A tiny detector in PyTorch, one test run for each."""
    config, weights = tiny_files[request.param]
    return FaceDetector.from_config(config, weights, device="cpu", score_threshold=0.6)


@pytest.fixture(scope="session")
def released_weights(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released head detector (17L4S), converted."""
    from lffd_d2.convert import convert_file

    path = tmp_path_factory.mktemp("released") / "head.pth"
    convert_file(test_data / "lffd" / "head_10_160_17L_4scales_v1_iter_800000.params", path)
    return path


@pytest.fixture(scope="session")
def released(released_weights: Path) -> FaceDetector:
    """That detector with the settings of the reference run."""
    return FaceDetector.from_config(
        "lffd/lffd_17L4S.yaml",
        released_weights,
        device="cpu",
        score_threshold=0.3,
        overrides=REFERENCE_SETTINGS,
    )


@pytest.fixture(scope="session")
def assert_reference(test_data: Path) -> Callable[[str, Any, Any], None]:
    """A function (photo, boxes (N, 4), scores (N,)) comparing with the original tool's boxes."""
    reference = json.loads((test_data / "lffd/reference/head_detections.json").read_text())

    def check(name: str, boxes: Any, scores: Any) -> None:
        expected = torch.tensor(reference["detections"][name])
        found = torch.tensor(np.asarray(boxes, dtype=np.float32)).reshape(-1, 4)
        assert len(found) == len(expected)
        overlap, match = box_iou(expected[:, :4], found).max(dim=1)
        assert len(set(match.tolist())) == len(expected)
        assert overlap.min() >= 0.98
        found_scores = torch.tensor(np.asarray(scores, dtype=np.float32))
        assert (found_scores[match] - expected[:, 4]).abs().max() <= 1e-3

    return check
