"""The ablation configs: each builds, trains, evaluates, and differs from its base as told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from df2s2_d2.anchors import AnchorGrid
from face_d2 import train_net
from face_d2.analysis.ablation.run import run_settings
from face_d2.analysis.ablation.suite import read_suite
from face_d2.config import get_cfg, get_config_file

FOLDER = Path(get_config_file("ablation/seg_off.yaml")).parent
ROWS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SUITES = sorted(path.stem for path in (FOLDER / "suites").glob("*.yaml"))
BASE = get_config_file("quick/df2s2_real.yaml")
#: The rows on a pretrained backbone, all based on one of them.
PRETRAINED = FOLDER / "pretrained"
PRETRAINED_BASE = PRETRAINED / "lite0_df2s2.yaml"
PRETRAINED_ROWS = sorted(p.stem for p in PRETRAINED.glob("*.yaml") if p != PRETRAINED_BASE)
#: The rows that change one setting of the recommended configs, based on two of them.
KEYS = FOLDER / "keys"
KEY_BASES = ("df2s2_base", "lffd_base")
KEY_ROWS = sorted(p.stem for p in KEYS.glob("*.yaml") if p.stem not in KEY_BASES)


def of_row(row: str) -> str:
    return str(FOLDER / f"{row}.yaml")


def test_the_rows_of_the_notes_are_there() -> None:
    assert {f"lambda2_{w}" for w in ("0.05", "0.1", "0.5", "1.0", "2.0")} <= set(ROWS)
    assert {"seg_off", "seg_det", "seg_none", "anchors_1", "anchors_2", "crop_off"} <= set(ROWS)
    assert {"fusion_fpn", "fusion_add", "fusion_mul", "psi_sigmoid", "iou_literal"} <= set(ROWS)
    assert {"up_upsample_conv", "up_conv_upsample", "deconv_kernel_4"} <= set(ROWS)
    assert {"cls_norm_level_pos", "cls_norm_level_all"} <= set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_builds_trains_and_evaluates(
    words: Callable[..., list[str]], tmp_path: Path, row: str
) -> None:
    tiny = [
        *("MODEL.DF2S2.CONV_DIM", 64, "MODEL.FFP.OUT_CHANNELS", 8),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 16, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
        *("INPUT.MIN_SIZE_TEST", 64, "MODEL.DF2S2.TOPK_CANDIDATES_TEST", 20),
        *("SOLVER.MAX_ITER", 2, "INPUT.FACE_CROP.SIZE", 64, "TEST.BEST_METRIC", ""),
    ]
    if row == "crop_off":
        tiny += ["INPUT.MIN_SIZE_TRAIN", (64,)]
    arguments = words(*tiny)
    arguments[arguments.index("--config-file") + 1] = of_row(row)
    train_net.main(arguments)
    run = tmp_path / "run"
    assert (run / "model_final.pth").is_file()
    assert (run / "inference" / "small_val" / "widerface.json").is_file()


@pytest.mark.parametrize("row", [PRETRAINED_BASE.stem, *PRETRAINED_ROWS])
def test_pretrained_rows_build_train_and_evaluate(
    words: Callable[..., list[str]], tmp_path: Path, row: str
) -> None:
    arguments = words(
        *("SOLVER.MAX_ITER", 1, "INPUT.FACE_CROP.SIZE", 64, "MODEL.DF2S2.TOPK_CANDIDATES_TEST", 20)
    )
    arguments[arguments.index("--config-file") + 1] = str(PRETRAINED / f"{row}.yaml")
    train_net.main(arguments)
    assert (tmp_path / "run" / "inference" / "small_val" / "widerface.json").is_file()


def checked_changes(row: Path, base: Path) -> set[str]:
    """The keys that a row changes; all lines of the row change its base, and only they."""
    written = yaml.safe_load(row.read_text())
    assert written.pop("_BASE_") == base.name
    assert written.pop("OUTPUT_DIR").endswith(f"/{row.stem}")
    changed = changed_keys(str(row), str(base))
    assert changed == set(leaves(written))
    return changed


def test_pretrained_rows_change_what_they_say() -> None:
    changed = {
        row: checked_changes(PRETRAINED / f"{row}.yaml", PRETRAINED_BASE) for row in PRETRAINED_ROWS
    }
    fusion = "MODEL.FFP.FUSION"
    towers = {"MODEL.DF2S2.SHARE_TOWER", "MODEL.DF2S2.SEG_ENABLED"}
    quick = changed.pop("lite0_quick")
    assert changed == {
        "lite0_retinanet": {fusion, *towers},
        "lite0_segmentation": {fusion},
        "lite0_ffp": towers,
        "lite0_seg_det": {"MODEL.DF2S2.SHARE_TOWER"},
        "lite0_psi_gain": {"MODEL.FFP.PSI_INIT_GAIN"},
        "lite0_fusion_add": {fusion},
        "lite0_frozen": {"MODEL.TIMM.NORM"},
        "lite0_retinanet_frozen": {fusion, *towers, "MODEL.TIMM.NORM"},
    }
    # What the row of the quick settings changes has the values of the quick config.
    theirs, ours = settings_of(BASE), settings_of(str(PRETRAINED / "lite0_quick.yaml"))
    assert {key: ours.get(key) for key in quick} == {key: theirs.get(key) for key in quick}


@pytest.mark.parametrize("row", KEY_ROWS)
def test_rows_of_keys_change_what_they_say(row: str) -> None:
    base = KEYS / f"{row.split('_')[0]}_base.yaml"
    assert 1 <= len(checked_changes(KEYS / f"{row}.yaml", base)) <= 3


@pytest.mark.parametrize(
    ("row", "shipped", "changed"),
    [
        ("keys/df2s2_base", "df2s2/df2s2_lite0_FFP_recommended", {"SOLVER.EMA.ENABLED"}),
        ("keys/lffd_base", "lffd/lffd_20L5S_recommended", {"INPUT.SCALE_SAMPLING.SIZE"}),
        ("recommended/long_recommended", "df2s2/df2s2_lite0_FFP_recommended", set()),
        ("recommended/long_quick", "ablation/pretrained/lite0_quick", set()),
        ("recommended/long_frozen", "ablation/recommended/long_recommended", {"MODEL.TIMM.NORM"}),
        ("recommended/long_quick_frozen", "ablation/recommended/long_quick", {"MODEL.TIMM.NORM"}),
    ],
)
def test_bases_change_the_schedule_of_shipped_configs(
    row: str, shipped: str, changed: set[str]
) -> None:
    keys = changed_keys(of_row(row), get_config_file(f"{shipped}.yaml"))
    allowed = {"MODEL.WEIGHTS", "TEST.BEST_METRIC", "TEST.EVAL_PERIOD"}
    schedule = ("MAX_ITER", "WARMUP_ITERS", "BASE_LR", "IMS_PER_BATCH")
    allowed |= {f"SOLVER.{key}" for key in schedule}
    assert keys - allowed == changed


def settings_of(file: str) -> dict[str, Any]:
    return run_settings(["--result", "unused", "--config-file", file, "--num-gpus", "0"])


def changed_keys(file: str, base_file: str) -> set[str]:
    """The keys with another value than in the base config."""
    settings, base = settings_of(file), settings_of(base_file)
    return {key for key in settings.keys() | base.keys() if settings.get(key) != base.get(key)}


@pytest.mark.parametrize("row", ROWS)
def test_says_what_matters_and_nothing_else(row: str) -> None:
    """The row's lines change the base, all of them, and are few."""
    written = yaml.safe_load(Path(of_row(row)).read_text())
    assert written.pop("_BASE_") == "../quick/df2s2_real.yaml"
    assert written.pop("OUTPUT_DIR").endswith(f"/{row}")
    changed = changed_keys(of_row(row), BASE)
    assert changed == set(leaves(written))
    assert 1 <= len(changed) <= 2


def leaves(node: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in node.items():
        inside = isinstance(value, dict)
        found += leaves(value, f"{prefix}{key}.") if inside else [f"{prefix}{key}"]
    return found


def small_cfg(file: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(file)
    cfg.merge_from_list(["MODEL.DF2S2.CONV_DIM", 64, "MODEL.FFP.OUT_CHANNELS", 8])
    return cfg


def fingerprint(file: str) -> dict[str, float]:
    """Parameters, labels and losses of one step on given faces, one too small for IoU 0.5."""
    cfg = small_cfg(file)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    faces = Instances((96, 128))
    faces.gt_boxes = Boxes(
        torch.tensor([[10.0, 12, 18, 20], [30, 20, 52, 50], [60, 5, 100, 70], [70, 75, 86, 95]])
    )
    faces.gt_classes = torch.zeros(4, dtype=torch.int64)
    image = 255 * torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(1))
    with EventStorage():
        losses = model([{"image": image, "instances": faces}])
    sizes = [(-(-96 // stride), -(-128 // stride)) for stride in model.strides]
    generator = model.anchor_generator
    grid = AnchorGrid.build(list(generator.cell_anchors), model.strides, generator.offset, sizes)
    labels = model.matcher(grid, faces.gt_boxes.tensor, torch.zeros(4, dtype=torch.bool)).labels
    return {
        **{name: float(value.detach()) for name, value in losses.items()},
        "ignored anchors": float((labels < 0).sum()),
        "parameters": float(sum(p.numel() for p in model.parameters())),
    }


@pytest.fixture(scope="module")
def base_fingerprint() -> dict[str, float]:
    return fingerprint(BASE)


def test_equal_settings_compute_the_same(base_fingerprint: dict[str, float]) -> None:
    """Where a row's fingerprint differs, the row is the cause."""
    assert fingerprint(BASE) == pytest.approx(base_fingerprint, rel=1e-6)


@pytest.mark.parametrize("row", [row for row in ROWS if row != "crop_off"])
def test_changes_what_is_computed(row: str, base_fingerprint: dict[str, float]) -> None:
    found = fingerprint(of_row(row))
    assert all(np.isfinite(value) for value in found.values())
    differs = found.keys() != base_fingerprint.keys() or any(
        abs(found[name] - value) > 1e-4 * abs(value) for name, value in base_fingerprint.items()
    )
    assert differs


def test_crop_off_changes_the_mapper() -> None:
    from face_d2.data.mapper import FaceDatasetMapper

    boxes, none = np.array([[10.0, 10, 50, 60]]), np.array([False])
    sizes = {}
    for file in (BASE, of_row("crop_off")):
        mapper = FaceDatasetMapper(small_cfg(file), is_train=True)
        _, _, sizes[file] = mapper.place_faces(boxes, none, (300, 450))
    assert list(sizes.values()) == [(192, 192), (192, 288)]


def test_suites_name_every_row() -> None:
    suites = [read_suite(name) for name in SUITES]
    named = {row for suite in suites for row in suite.rows}
    assert {*ROWS, *PRETRAINED_ROWS, *KEY_ROWS} <= named
    headline = read_suite("headline")
    assert list(headline.rows) == [
        "retinanet_real",
        "fusion_fpn",
        "ffp_only",
        "df2s2_real",
        "lffd_small_real",
    ]
    base = {"pretrained": "lite0_df2s2", "batch_norm": "lite0_df2s2"}
    base |= {"recommended": "long_recommended"}
    base |= {"df2s2_keys": "df2s2_base", "lffd_keys": "lffd_base"}
    assert all(base.get(suite.name, "df2s2_real") in suite.rows for suite in suites)
