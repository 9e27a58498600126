from __future__ import annotations

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from torch.nn import functional as F

from df2s2_d2 import FBlock, add_df2s2_config, build_resnet_ffp_backbone


def backbone_cfg(*overrides: object) -> object:
    cfg = get_cfg()
    add_df2s2_config(cfg)
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.FFP.OUT_CHANNELS = 16
    cfg.merge_from_list(list(overrides))
    if cfg.MODEL.RESNETS.DEPTH < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    return cfg


def build(*overrides: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_resnet_ffp_backbone(backbone_cfg(*overrides), ShapeSpec(channels=3)).eval()


SLIM = (
    "MODEL.RESNETS.STEM_OUT_CHANNELS",
    4,
    "MODEL.RESNETS.RES2_OUT_CHANNELS",
    16,
    "MODEL.RESNETS.WIDTH_PER_GROUP",
    4,
)


def hand_block(fusion: str, activation: str = "none") -> torch.Tensor:
    """A 2 x 1 deep map with two channels over a 3 x 2 shallow one, computed below by hand."""
    block = FBlock(2, 1, fusion=fusion, activation=activation)
    with torch.no_grad():
        block.psi.weight.zero_()
        block.psi.weight[0, 0] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        block.psi.weight[1, 0] = torch.tensor([[10.0, 0.0], [0.0, 0.0]])
        block.psi.bias.fill_(0.5)
        deep = torch.tensor([[[[1.0], [2.0]], [[0.0], [1.0]]]])  # (1, 2, 2, 1)
        shallow = torch.tensor([[[[1.0, 2.0], [3.0, 4.0], [5.0, -1.0]]]])  # (1, 1, 3, 2)
        return block(shallow, deep)[0, 0]


# Psi of the deep map: rows 0-1 from 1 x kernel 0, rows 2-3 from 2 x kernel 0 + 1 x kernel 1, plus
# the bias 0.5; the shallow map has no row 3.
PSI = torch.tensor([[1.5, 2.5], [3.5, 4.5], [12.5, 4.5]])
SHALLOW = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, -1.0]])


def test_f_block_by_hand() -> None:
    # phi * Psi + phi, equation 1
    expected = torch.tensor([[2.5, 7.0], [13.5, 22.0], [67.5, -5.5]])
    assert torch.equal(hand_block("mul_add"), expected)
    assert torch.equal(hand_block("mul"), SHALLOW * PSI)
    assert torch.equal(hand_block("add"), SHALLOW + PSI)
    gated = SHALLOW * PSI.sigmoid() + SHALLOW
    assert torch.allclose(hand_block("mul_add", "sigmoid"), gated)


@pytest.mark.parametrize("up", ["deconv", "upsample_conv", "conv_upsample"])
@pytest.mark.parametrize("kernel", [2, 4])
@pytest.mark.parametrize("size", [(7, 9), (8, 8), (1, 2)])
def test_f_block_keeps_the_shallow_size(up: str, kernel: int, size: tuple[int, int]) -> None:
    block = FBlock(6, 3, up=up, deconv_kernel=kernel)
    shallow = torch.rand(2, 3, *size)
    deep = torch.rand(2, 6, -(-size[0] // 2), -(-size[1] // 2))
    assert block(shallow, deep).shape == shallow.shape


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_every_depth_and_native_widths(depth: int) -> None:
    overrides = ("MODEL.RESNETS.DEPTH", depth, *SLIM[2:4]) if depth < 50 else (*SLIM,)
    model = build("MODEL.RESNETS.DEPTH", depth, "MODEL.FFP.OUT_CHANNELS", 0, *overrides)
    widths = [64, 128, 256, 512] if depth < 50 else [16, 32, 64, 128]
    shapes = model.output_shape()
    assert list(shapes) == ["ffp2", "ffp3", "ffp4", "ffp5", "ffp6", "ffp7"]
    assert [s.stride for s in shapes.values()] == [4, 8, 16, 32, 64, 128]
    assert [s.channels for s in shapes.values()] == [*widths, widths[-1], widths[-1]]
    maps = model(torch.rand(1, 3, 64, 96))
    assert [m.shape[1] for m in maps.values()] == [s.channels for s in shapes.values()]


@pytest.mark.parametrize("size", [(65, 127), (1, 1), (37, 640), (128, 256)])
def test_any_size(size: tuple[int, int]) -> None:
    model = build(*SLIM)
    maps = model(torch.rand(2, 3, *size))
    for name, shape in model.output_shape().items():
        expected = [-(-side // shape.stride) for side in size]
        assert list(maps[name].shape) == [2, 16, *expected], name


def test_fusion_is_recursive_and_pools_the_deepest() -> None:
    """The pyramid step by step from the parts: what is fused feeds the next fusion."""
    model = build("MODEL.FFP.OUT_CHANNELS", 0, *SLIM)
    image = torch.rand(1, 3, 70, 90)
    stages, maps = model.bottom_up(image), model(image)
    assert torch.equal(maps["ffp5"], stages["res5"])
    fused = stages["res5"]
    for level, block in ((4, 2), (3, 1), (2, 0)):
        stage = stages[f"res{level}"]
        psi = F.conv_transpose2d(
            fused, model.f_blocks[block].psi.weight, model.f_blocks[block].psi.bias, stride=2
        )[..., : stage.shape[2], : stage.shape[3]]
        fused = stage * psi + stage
        assert torch.allclose(maps[f"ffp{level}"], fused, rtol=1e-4, atol=1e-5)
    rows, columns = maps["ffp5"].shape[2:]
    assert (rows, columns) == (3, 3)  # odd: the last row and column must not be lost
    assert torch.equal(maps["ffp6"][..., 1, 1], maps["ffp5"][..., 2, 2])
    assert maps["ffp7"].shape[2:] == (1, 1)
    assert torch.equal(maps["ffp7"][..., 0, 0], maps["ffp5"].amax(dim=(2, 3)))


def test_parameters_of_the_transposed_convolutions() -> None:
    """Kernel 2 on ResNet-50's widths: 8.39, 2.10 and 0.52 million weights."""
    model = build("MODEL.FFP.OUT_CHANNELS", 0)
    weights = [block.psi.weight for block in model.f_blocks]
    assert all(isinstance(b.psi, torch.nn.ConvTranspose2d) for b in model.f_blocks)
    assert [w.numel() for w in weights] == [4 * 512 * 256, 4 * 1024 * 512, 4 * 2048 * 1024]


def test_fpn_is_detectron2s() -> None:
    from detectron2.modeling import FPN

    model = build("MODEL.FFP.FUSION", "fpn", *SLIM)
    assert type(model) is FPN
    assert list(model.output_shape()) == ["p2", "p3", "p4", "p5", "p6", "p7"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("FUSION", "sum"), ("UP", "bilinear"), ("DECONV_KERNEL", 3), ("PSI_ACTIVATION", "relu")],
)
def test_unknown_choice_names_the_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"MODEL.FFP.{key}"):
        build(f"MODEL.FFP.{key}", value, *SLIM)


def test_missing_stage_is_named() -> None:
    with pytest.raises(ValueError, match="res2"):
        build("MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"], *SLIM)


def test_stages_must_follow_each_other() -> None:
    with pytest.raises(ValueError, match="strides"):
        build("MODEL.FFP.IN_FEATURES", ["res2", "res4", "res5"], *SLIM)


@pytest.mark.parametrize("fusion", ["mul_add", "fpn"])
@pytest.mark.parametrize("deepest", [4, 5])
def test_stages_that_are_not_fused_are_not_trained(deepest: int, fusion: str) -> None:
    stages = [f"res{stage}" for stage in range(3, deepest + 1)]
    model = build("MODEL.FFP.IN_FEATURES", stages, "MODEL.FFP.FUSION", fusion, *SLIM)
    sum(level.sum() for level in model(torch.rand(1, 3, 64, 64)).values()).backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("res5" in name for name in learned) == (deepest == 5)
    assert any("res5" in name for name, _ in model.named_parameters())
